"""Locks: one process at a time. The kernel frees a lock with its process, however it ends, so none is ever stale."""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gtp_runtime.errors import OutputError

log = logging.getLogger(__name__)
PATIENCE = 30.0  # seconds to wait for a directory, which others hold for far less than one
PAUSE = 0.02  # seconds between two tries
LOCK_NAME = "lock"
TRIES = 1000  # each one lost to another export that ended just then


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
