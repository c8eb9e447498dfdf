"""Atomic writes: a temporary file next to the target is written, flushed to the disk, and renamed to the target.

A process that is killed leaves ``.NAME.tmp-PID-N`` next to NAME. A writer holds a lock on its temporary file. So the
next writer of NAME removes those without a lock, and never one that another process is writing.

Locks are here too: one process at a time. The kernel frees a lock with its process, however it ends, so none is stale.
"""

import errno
import fcntl
import itertools
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gtp_runtime.errors import OutputError

log = logging.getLogger(__name__)
PATIENCE = 30.0  # seconds to wait for a directory, which others hold for far less than one
PAUSE = 0.02  # seconds between two tries
LOCK_NAME = "lock"
TRIES = 1000  # each one lost to another export that ended just then
_numbers = itertools.count()
_TEMPORARY = re.compile(r"\.(.+)\.tmp-\d+-\d+")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: see ``replacing``."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
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


@contextmanager
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
        if not _try_lock(descriptor):  # the link could be swept as soon as the other process is done
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
        if _try_lock(descriptor) and temporary.exists():
            return temporary, descriptor
        os.close(descriptor)  # swept before we held it


def _try_lock(descriptor: int) -> bool:
    """Lock a temporary of ours; False where a sweeper was faster. Without locks nothing is swept either."""
    try:
        lock(descriptor)
    except BlockingIOError:
        return False
    return True


def temporary_of(name: str) -> str | None:
    """Return the name of the file for which a temporary of this name was made; None for other files."""
    match = _TEMPORARY.fullmatch(name)
    return match and match[1]


def sweep(target: Path) -> None:
    """Remove temporary files of this file that no process has locked."""
    for temporary in _left(target):
        with suppress(OSError):  # another sweeper was faster
            temporary.unlink()
            log.info("removed %s, which a process that was killed left", temporary)


def finish(target: Path, is_wanted: Callable[[Path], bool]) -> bool:
    """Move the temporary file that is wanted to its place, where a process was killed before it did so.

    Returns:
        False if there is none, or it cannot be moved.
    """
    for temporary in _left(target):
        with suppress(OSError):  # a directory that cannot be written, or another was faster
            if is_wanted(temporary):
                os.replace(temporary, target)
                log.info("moved %s to its place, which a process that was killed left", temporary)
                return True
    return False


def _left(target: Path) -> Iterator[Path]:
    """Yield the temporary files of this file that no process has locked, each while it is locked here."""
    entries: list[str] = []
    with suppress(OSError):  # a folder that is missing is the writer's to report
        entries = os.listdir(target.parent)
    for name in entries:
        if temporary_of(name) != target.name:
            continue
        with suppress(OSError):  # held, or a link
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


def lock(descriptor: int) -> bool:
    """Lock an open file or folder until its descriptor is closed.

    Returns:
        False on a file system without locks: NFS cannot lock folders, and some cannot lock at all.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        log.debug("there are no locks here: %s", error)
        return False
    return True


@contextmanager
def held(directory: Path, patience: float | None = None) -> Iterator[None]:
    """Hold a directory to change its manifest and files. Only for short work, and not reentrant.

    On a file system without locks, it is changed without one.

    Args:
        directory: which exists.
        patience: seconds to wait for another process (default: ``PATIENCE``).

    Raises:
        TimeoutError: another process holds it for longer.
        OSError: the directory does not exist.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    end = time.monotonic() + (PATIENCE if patience is None else patience)
    try:
        while True:
            try:
                lock(descriptor)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    reason = "another process has locked the directory"
                    raise TimeoutError(errno.ETIMEDOUT, reason, str(directory)) from None
                time.sleep(PAUSE)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def held_work(work: Path) -> Iterator[None]:
    """Make a working folder and hold it for long work; at the end the folder is removed if it is empty.

    Raises:
        OutputError: another process holds it.
        OSError: it cannot be made, or cannot be locked.
    """
    descriptor = _open_lock(work)
    try:
        yield
    finally:
        with suppress(OSError):
            (work / LOCK_NAME).unlink()  # still held: whoever opened it finds another file there, and tries again
            work.rmdir()
        os.close(descriptor)


def _open_lock(work: Path) -> int:
    for _ in range(TRIES):
        try:
            with suppress(FileExistsError):
                work.mkdir(parents=True)
            descriptor = os.open(work / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # the folder was removed since by an export that ended
            continue
        try:
            _lock_or_name(descriptor, work)
            if _is_same(descriptor, work / LOCK_NAME):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise OutputError(f"other exports to {work.parent} are running: try again when they are done")


def _lock_or_name(descriptor: int, work: Path) -> None:
    """Lock the file of a working folder, or name the process that holds it."""
    try:
        if not lock(descriptor):
            raise OSError(errno.ENOLCK, "the file system has no locks", str(work))
    except BlockingIOError:
        number = os.read(descriptor, 20).decode(errors="replace")
        who = f"process {number}" if number.isdigit() else "another process"
        raise OutputError(f"{who} is exporting to {work.parent}: wait until it is done, or choose another -o") from None


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether the open file still stands at its path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False
