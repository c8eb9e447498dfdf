"""Exchanges two paths at once: ``renameat2`` of Linux, which Python does not have."""

import ctypes
import errno
import os
from pathlib import Path

AT_FDCWD = -100  # paths are relative to the current folder
RENAME_EXCHANGE = 2


def exchange(one: Path, other: Path) -> None:
    """Let two existing paths of one file system change places, whatever they are, in one step.

    Raises:
        OSError: the C library or the file system cannot do it (overlayfs: a folder of a lower layer), or one is a mount
            point.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, "the C library has no renameat2")
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
