"""Folders of images, however many there are: no object for each."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TypeVar

import numpy as np

from gtp_runtime.errors import ImageError, InputError

T = TypeVar("T")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}
SEPARATOR = b"\0"  # between the parts of a name: names sort as paths do, and no part can hold it
PACKED = 4096  # names that are Python objects at a time


def find_images(folder: str | PathLike[str]) -> list[Path]:
    """Return all image files below a folder, in alphabetical order.

    Raises:
        ImageError, InputError: as ``image_names``.
    """
    names = image_names(folder)
    return [Path(image_path(folder, name)) for name in names]


def image_names(folder: str | PathLike[str]) -> np.ndarray:
    """Return the names of all image files below a folder, in alphabetical order: (N,) bytes, N > 0.

    Each is the path below the folder, its parts separated by ``SEPARATOR``; ``image_path`` turns it into a path. A
    million names take as much memory as their letters. Hidden files and folders (names that begin with a dot) are
    skipped: next to ``x.jpg``, macOS keeps a ``._x.jpg`` on foreign disks, which is not an image, and tools keep copies
    in folders like ``.thumbnails``. Links to folders are followed, but for those that lead back up.

    Raises:
        ImageError: no such folder, no image in it, or a folder that cannot be read.
        InputError: the folder is not a path.
    """
    if not isinstance(folder, str | PathLike):
        raise InputError(f"give a folder as a path, not {type(folder).__name__}")
    if not Path(folder).is_dir():
        raise ImageError(f"no folder {folder}: give a folder of images")
    try:
        names = packed(_walk(os.fsencode(folder)))
    except OSError as error:
        raise ImageError(f"cannot read the folder {error.filename!s}: {error.strerror}") from error
    if not len(names):
        raise ImageError(f"no image in {folder}: supported files are {', '.join(sorted(SUFFIXES))}")
    names.sort()
    return names


def image_path(folder: str | PathLike[str], name: bytes) -> str:
    """Return the path of one of ``image_names``. It is no ``Path``, which would intern the name of every image."""
    return os.path.join(folder, os.fsdecode(name.replace(SEPARATOR, b"/")))


def packed(names: Iterable[bytes]) -> np.ndarray:
    """Return strings as one (N,) array of bytes, without a Python object for each, nor a second copy of all."""
    rest, count, found = iter(names), 0, np.empty(PACKED, "S1")
    while part := list(islice(rest, PACKED)):
        block = np.array(part)
        if block.itemsize > found.itemsize:
            found = found.astype(block.dtype)
        if count + len(block) > len(found):
            found.resize(2 * len(found), refcheck=False)
        found[count : count + len(block)] = block
        count += len(block)
    found.resize(count, refcheck=False)
    return found


def _walk(folder: bytes, before: bytes = b"", above: tuple[tuple[int, int], ...] = ()) -> Iterator[bytes]:
    """Yield the names below a folder; ``above`` are device and inode of the folders that lead there."""
    status = os.stat(folder)
    own = (status.st_dev, status.st_ino)
    if own in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, before + entry.name + SEPARATOR, (*above, own))
            elif os.fsdecode(os.path.splitext(entry.name)[1]).lower() in SUFFIXES:
                yield before + entry.name


def spread(items: Sequence[T], limit: int) -> list[T]:
    """Return at most ``limit`` of the items, spread evenly over them."""
    if len(items) <= limit:
        return list(items)
    step = (len(items) - 1) / max(1, limit - 1)
    return [items[int(index * step)] for index in range(limit)]


@dataclass(frozen=True)
class ImageSet:
    """Images and their classes, without an object for each; made by ``labels.find_image_set``.

    Attributes:
        folder: where the images are.
        names: (N,) bytes, N > 0, as ``image_names`` returns them.
        classes: (N,) int32; None where they are unknown.
        class_order: what said the classes of sub-folders (``class_folders.FolderClasses.taken``); None otherwise.
        class_folders: the class of each sub-folder, where its name alone does not say it; None otherwise.
    """

    folder: Path
    names: np.ndarray
    classes: np.ndarray | None = None
    class_order: str | None = None
    class_folders: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        return image_path(self.folder, self.names[index])

    def name(self, index: int) -> str:
        """Return the path of an image below the folder, in words."""
        return os.fsdecode(self.names[index].replace(SEPARATOR, b"/"))

    def part(self, places: "np.ndarray | slice") -> "ImageSet":
        """Return the images at these places, in their order."""
        classes = None if self.classes is None else self.classes[places]
        return replace(self, names=self.names[places], classes=classes)

    def spread(self, limit: int) -> "ImageSet":
        """Return at most ``limit`` of the images, 1 or more, spread evenly over them."""
        return self if len(self) <= limit else self.part(np.array(spread(range(len(self)), limit)))

    def digest(self) -> str:
        """Return a hash of all names and classes; hexadecimal digits."""
        found = hashlib.sha256(self.names.view(np.uint8).data)  # no copy
        if self.classes is not None:
            found.update(self.classes.data)
        return found.hexdigest()

    def stamp(self) -> str:
        """Return a hash of all names and classes, and of each file's size and time; hexadecimal digits."""
        found = hashlib.sha256(self.digest().encode())
        for index in range(len(self)):
            found.update(_size_and_time(self.path(index)))
        return found.hexdigest()


def _size_and_time(path: str) -> bytes:
    try:
        found = os.stat(path)
    except OSError:  # it is counted as unreadable
        return b"missing\n"
    return b"%d %d\n" % (found.st_size, int(found.st_mtime))
