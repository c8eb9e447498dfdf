"""A lock: one export at a time in a directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gtp_exporters.errors import OutputError

LOCK_NAME = "lock"
TRIES = 1000  # each one lost to another export that ended just then


@contextmanager
def held(work: Path) -> Iterator[None]:
    """Make the working folder and hold it; at the end the folder is removed if it is empty.

    The kernel frees the lock with the process, however it ends, so that what a killed export left is known to be stale.

    Raises:
        OutputError: another export holds it.
    """
    descriptor = _hold(work)
    try:
        yield
    finally:
        with suppress(OSError):
            (work / LOCK_NAME).unlink()  # still held: whoever opened it finds another file there, and tries again
            work.rmdir()
        os.close(descriptor)


def _hold(work: Path) -> int:
    for _ in range(TRIES):
        try:
            with suppress(FileExistsError):
                work.mkdir(parents=True)
            descriptor = os.open(work / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # the folder was removed since by an export that ended
            continue
        try:
            _lock(descriptor, work)
            if _is_same(descriptor, work / LOCK_NAME):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise OutputError(f"other exports to {work.parent} are running: try again when they are done")


def _lock(descriptor: int, work: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        number = os.read(descriptor, 20).decode(errors="replace")
        who = f"process {number}" if number.isdigit() else "another process"
        raise OutputError(f"{who} is exporting to {work.parent}: wait until it is done, or choose another -o") from None


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether the open file still stands at its path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False
