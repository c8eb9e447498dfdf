"""Changes a manifest under a lock, so that two processes that change it at the same time lose nothing."""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)
PATIENCE = 30.0  # seconds to wait for the lock, which others hold for far less than one
_PAUSE = 0.02  # seconds between two tries


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Lock a directory (flock) to change its manifest and files. Only for short work, and not reentrant.

    The kernel releases the lock when the process ends. On a file system without such locks, there is none.

    Raises:
        OSError: the directory does not exist, or another process holds the lock for longer than ``PATIENCE``.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise TimeoutError(
                    errno.ETIMEDOUT, "another process has locked the directory", str(directory)
                ) from None
            time.sleep(_PAUSE)
        except OSError as error:  # NFS cannot lock folders, and some file systems cannot lock at all
            log.debug("%s is changed without a lock: %s", directory, error)
            return
        else:
            return
