"""Atomic writes: a temporary file next to the target is written, flushed to the disk, and renamed to the target.

A process that is killed leaves ``.NAME.tmp-PID-N`` next to NAME. A writer holds a lock on its temporary file. So the
next writer of NAME removes those without a lock, and never one that another process is writing.
"""

import contextlib
import fcntl
import itertools
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)
_numbers = itertools.count()


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
    temporary, lock = _create(target)
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(lock)
    try:
        flush(target.parent)
    except OSError as error:  # not every file system can flush a folder; the file is in place
        log.debug("%s is not flushed: %s", target.parent, error)


@contextlib.contextmanager
def restoring(path: Path) -> Iterator[None]:
    """If the block fails, restore the file at ``path``, or remove a new file there.

    During the block, a temporary file keeps the content: a hard link, or a copy on a file system without links.

    Raises:
        OSError: the temporary file cannot be made.
    """
    target = Path(os.path.realpath(path))
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
            kept[0].unlink(missing_ok=True)
            os.close(kept[1])


def _keep(target: Path) -> tuple[Path, int]:
    """Link or copy a file to a temporary file, and lock that."""
    link, lock = _temporary(target), os.open(target, os.O_RDONLY)
    _held(lock)  # before the link is there for others to sweep
    try:
        os.link(target, link)
    except OSError as error:
        log.debug("%s is copied because it cannot be linked: %s", target, error)
        os.close(lock)
        return _copy(target)
    return link, lock


def _copy(target: Path) -> tuple[Path, int]:
    temporary, lock = _create(target)
    try:
        shutil.copyfile(target, temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        os.close(lock)
        raise
    return temporary, lock


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.tmp-{os.getpid()}-{next(_numbers)}")


def _create(target: Path) -> tuple[Path, int]:
    """Make a temporary of ours and hold it: the lock lasts until the descriptor is closed."""
    while True:
        temporary = _temporary(target)
        try:
            descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileExistsError:  # of an earlier process with this id
            continue
        if _held(descriptor) and temporary.exists():
            return temporary, descriptor
        os.close(descriptor)  # swept before we held it


def _held(descriptor: int) -> bool:
    """Lock a temporary of ours; False where a sweeper was faster."""
    try:
        _lock(descriptor)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, where nothing is swept either
        return True
    return True


def sweep(target: Path) -> None:
    """Remove temporary files of this file that no process has locked."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.tmp-\d+-\d+")
    entries: list[str] = []
    with contextlib.suppress(OSError):  # a folder that is missing is the writer's to report
        entries = os.listdir(target.parent)
    for name in filter(ours.fullmatch, entries):
        found = target.parent / name
        with contextlib.suppress(OSError):  # held, or another sweeper was faster
            descriptor = os.open(found, os.O_RDWR | os.O_NOFOLLOW)
            try:
                _lock(descriptor)
                found.unlink()
                log.info("removed %s, which a process that was killed left", found)
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Hold a file until its descriptor is closed.

    Raises:
        OSError: another writer holds it, or the file system has no locks.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
