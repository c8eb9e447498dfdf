"""Atomic writes: a temporary file next to the target is written, flushed to the disk, and renamed to the target.

A process that is killed leaves ``.NAME.tmp-PID-N`` next to NAME. A writer holds a lock on its temporary file. So the
next writer of NAME removes those without a lock, and never one that another process is writing.
"""

import contextlib
import itertools
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from gtp_runtime.transaction.lock import lock

log = logging.getLogger(__name__)
_numbers = itertools.count()
_TEMPORARY = re.compile(r"\.(.+)\.tmp-\d+-\d+")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: see ``replacing``."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file next to ``path`` to write to; it replaces ``path`` at the end.

    After any failure the earlier file is unchanged and the temporary file is gone. A symbolic link is kept, and its
    target is replaced. The new file has the default permissions (0o644 under the usual umask).

    Raises:
        OSError: the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    sweep(target)
    temporary, descriptor = _create(target)
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    flush_folder(target.parent)


def create_bytes(path: Path, content: bytes, mode: int) -> None:
    """Write a new file with these permissions, whole or not at all; an earlier one is never replaced.

    Raises:
        FileExistsError: there is one.
        OSError: it cannot be written.
    """
    temporary, descriptor = _create(path, mode)
    try:
        temporary.write_bytes(content)
        flush(temporary)
        _name(temporary, path)
    finally:
        _drop(temporary, descriptor)


def _drop(temporary: Path, descriptor: int) -> None:
    """Remove a temporary file of ours; one that cannot be removed is left to the next writer."""
    try:
        temporary.unlink(missing_ok=True)
    except OSError as error:
        log.info("%s is left: %s", temporary, error)
    finally:
        os.close(descriptor)


def _name(temporary: Path, path: Path) -> None:
    """Give a file its name if no other has it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        log.debug("%s is renamed because it cannot be linked: %s", temporary, error)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(temporary, path)


@contextlib.contextmanager
def restoring(path: Path) -> Iterator[None]:
    """If the block fails, restore the file at ``path``, or remove a new file there.

    During the block, a temporary file keeps the content: a hard link, or a copy on a file system without links.

    Raises:
        OSError: the temporary file cannot be made.
    """
    target = Path(os.path.realpath(path))
    sweep(target)  # a link to this very file that was left would be taken for ours while we hold the lock
    kept = _keep(target) if target.exists() else None
    try:
        yield
    except BaseException:
        if kept is None:
            target.unlink(missing_ok=True)
        else:
            os.replace(kept[0], target)
        raise
    finally:
        if kept is not None:
            _drop(*kept)


def _keep(target: Path) -> tuple[Path, int]:
    """Link or copy a file to a temporary file, and lock that."""
    link, descriptor = _temporary(target), os.open(target, os.O_RDONLY)
    try:
        if not _held(descriptor):  # the link could be swept as soon as the other process is done
            raise BlockingIOError("another process holds it")
        os.link(target, link)
    except OSError as error:
        log.debug("%s is copied because it cannot be linked: %s", target, error)
        os.close(descriptor)
        return _copy(target)
    return link, descriptor


def _copy(target: Path) -> tuple[Path, int]:
    temporary, descriptor = _create(target)
    try:
        shutil.copyfile(target, temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)
        raise
    return temporary, descriptor


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.tmp-{os.getpid()}-{next(_numbers)}")


def _create(target: Path, mode: int = 0o666) -> tuple[Path, int]:
    """Make a temporary of ours and hold it: the lock lasts until the descriptor is closed."""
    while True:
        temporary = _temporary(target)
        try:
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
        except FileExistsError:  # of an earlier process with this id
            continue
        if _held(descriptor) and temporary.exists():
            return temporary, descriptor
        os.close(descriptor)  # swept before we held it


def _held(descriptor: int) -> bool:
    """Lock a temporary of ours; False where a sweeper was faster. Without locks nothing is swept either."""
    try:
        lock(descriptor)
    except BlockingIOError:
        return False
    return True


def temporary_of(name: str) -> str | None:
    """Return the name of the file for which a temporary of this name was made; None for other files."""
    found = _TEMPORARY.fullmatch(name)
    return found and found[1]


def sweep(target: Path) -> None:
    """Remove temporary files of this file that no process has locked."""
    for found in _left(target):
        with contextlib.suppress(OSError):  # another sweeper was faster
            found.unlink()
            log.info("removed %s, which a process that was killed left", found)


def finish(target: Path, is_wanted: Callable[[Path], bool]) -> bool:
    """Move the temporary file that is wanted to its place, where a process was killed before it did so.

    Returns:
        False if there is none, or it cannot be moved.
    """
    for found in _left(target):
        with contextlib.suppress(OSError):  # a directory that cannot be written, or another was faster
            if is_wanted(found):
                os.replace(found, target)
                log.info("moved %s to its place, which a process that was killed left", found)
                return True
    return False


def _left(target: Path) -> Iterator[Path]:
    """Yield the temporary files of this file that no process has locked, each while it is locked here."""
    entries: list[str] = []
    with contextlib.suppress(OSError):  # a folder that is missing is the writer's to report
        entries = os.listdir(target.parent)
    for name in entries:
        if temporary_of(name) != target.name:
            continue
        with contextlib.suppress(OSError):  # held, or a link
            descriptor = os.open(target.parent / name, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if lock(descriptor):
                    yield target.parent / name
            finally:
                os.close(descriptor)


def flush_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can."""
    try:
        flush(path)
    except OSError as error:
        log.debug("%s is not flushed: %s", path, error)


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk.

    Raises:
        OSError: the disk fails, or the file system cannot.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
