"""Opens files from elsewhere: regular ones only, and no larger than is allowed.

A FIFO or a device would wait for ever, or never end. Whoever calls turns the ``OSError`` into an error of its own.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: "str | os.PathLike[str]", limit: int | None = None, *, links: bool = True) -> BinaryIO:
    """Open a regular file to read; it never waits.

    Args:
        path: the file.
        limit: bytes that it may have; None for any number.
        links: whether the path may be a symbolic link.

    Raises:
        OSError: missing, unreadable, something else than a regular file, or larger than ``limit``.
        ValueError: a path that no file can have (a NUL in it).
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            what = next((name for is_kind, name in KINDS if is_kind(status.st_mode)), "something else")
            raise OSError(errno.EINVAL, f"it is {what}, not a regular file")
        if limit is not None and status.st_size > limit:
            raise OSError(errno.EFBIG, f"it has {status.st_size} bytes, at most {limit} are read")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: "str | os.PathLike[str]", limit: int) -> bytes:
    """Return what a regular file of at most ``limit`` bytes holds. Raises as ``open_regular`` does."""
    with open_regular(path, limit) as file:
        content = file.read(limit + 1)
    if len(content) > limit:  # it grows while it is read
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes")
    return content


def check_regular(path: Path) -> None:
    """Check that a file can be opened and is a regular one, for readers that open it themselves.

    Raises:
        OSError: as ``open_regular``.
        ValueError: likewise.
    """
    open_regular(path).close()


@contextmanager
def named_in_utf8(path: Path) -> Iterator[Path]:
    """Lend a path of a file that libraries in C++ can be given, which take UTF-8 alone: the same where it is.

    Elsewhere, which Linux allows, its folder is opened (or the file, where that has such a name), and reached through
    ``/proc/self/fd``.

    Raises:
        OSError: it cannot be opened.
    """
    if _is_utf8(str(path)):
        yield path
        return
    opened = os.open(path.parent if _is_utf8(path.name) else path, os.O_RDONLY | os.O_CLOEXEC)
    place = Path(f"/proc/self/fd/{opened}")
    try:
        yield place / path.name if _is_utf8(path.name) else place
    finally:
        os.close(opened)


def _is_utf8(name: str) -> bool:
    return os.fsencode(name) == name.encode("utf-8", "replace")
