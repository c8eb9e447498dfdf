"""Opens an .npz archive from elsewhere: what it takes in memory is known and bounded before anything is unpacked."""

import zipfile
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gtp_runtime.opening import open_regular
from gtp_runtime.text import one_line

LARGEST = 1 << 30  # bytes of all arrays
FREE = 1 << 24  # bytes that any archive may unpack to
RATIO = 100  # above that, bytes for one of the file: images hardly shrink, and an archive of zeros does by 1,000
MOST = 4096  # arrays
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an archive by name; nothing in it is unpickled.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no archive of plain arrays, or they take more memory than is allowed.
        zipfile.BadZipFile, zlib.error, EOFError, RuntimeError: it is damaged.
    """
    with open_regular(path) as file:
        _check_sizes(file)
        file.seek(0)
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is no .npz archive")
        return {name: _array(archive[name], name) for name in archive.files}


def _array(value: object, name: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} is no array")
    return value


def _check_sizes(file: BinaryIO) -> None:
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > MOST:
            raise ValueError(f"it holds {len(members)} arrays, at most {MOST} are read")
        allowed = min(LARGEST, FREE + RATIO * size)
        total = sum(member.file_size for member in members)
        if total > allowed:
            raise ValueError(f"it unpacks to {total} bytes, at most {allowed} are allowed for {size}")
        for member in members:
            _check_member(archive, member)


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """An array is as large as its header says: numpy makes room for it before it reads."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is packed in another way than numpy's")
    with archive.open(member) as content:
        version = np.lib.format.read_magic(content)
        if version not in HEADERS:
            raise ValueError(f"{member.filename} has format {version}, which numpy does not write for such arrays")
        try:
            shape, _, dtype = HEADERS[version](content)
        except Exception as error:  # numpy parses it as Python, whose parts have exceptions of their own
            raise ValueError(f"{member.filename} has a header that cannot be read ({one_line(error, 100)})") from error
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds Python objects, which are never unpickled")
        if content.tell() + prod(shape) * dtype.itemsize != member.file_size or min(shape, default=0) < 0:
            raise ValueError(f"{member.filename} is not as large as its shape {shape} says")
