"""Changes a manifest: whoever reads, changes and writes it holds the directory meanwhile, so that no change is lost."""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gtp_runtime.manifest.reading import read_manifest, write_manifest
from gtp_runtime.manifest.schema import Manifest

log = logging.getLogger(__name__)
PATIENCE = 30.0  # seconds to wait for others, who take far less than one
_PAUSE = 0.02  # seconds between two tries


def update_manifest(directory: Path, change: Callable[[Manifest], Manifest]) -> Manifest:
    """Replace the manifest by what ``change`` makes of it, and return that; others wait meanwhile.

    Raises:
        ManifestError: no manifest, or a damaged one.
        OSError: it cannot be written or held; it is as it was. Whatever ``change`` raises leaves it likewise.
    """
    with held(directory):
        changed = change(read_manifest(directory))
        write_manifest(changed, directory)
    return changed


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold a directory (flock), to change its manifest and files: short work only, and never twice at a time.

    The kernel frees it with the process. A file system that cannot lock folders is used without.

    Raises:
        OSError: no such directory, or another process holds it for longer than ``PATIENCE``.
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
                raise TimeoutError(errno.ETIMEDOUT, "another process holds the directory", str(directory)) from None
            time.sleep(_PAUSE)
        except OSError as error:  # NFS locks no folders, some file systems nothing
            log.debug("%s is changed without a lock: %s", directory, error)
            return
        else:
            return
