"""Folders of images."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TypeVar

from gtp_runtime.errors import ImageError, InputError

T = TypeVar("T")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}


def find_images(folder: str | PathLike[str]) -> list[Path]:
    """Return all image files below a folder, in alphabetical order.

    Hidden files and folders (names that begin with a dot) are skipped: next to ``x.jpg``, macOS keeps a ``._x.jpg``
    on foreign disks, which is not an image, and tools keep copies in folders like ``.thumbnails``.

    Raises:
        ImageError: no such folder, or no image in it.
        InputError: the folder is not a path.
    """
    if not isinstance(folder, str | PathLike):
        raise InputError(f"give a folder as a path, not {type(folder).__name__}")
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"no folder {folder}: give a folder of images")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not _hidden(path, folder))
    if not found:
        raise ImageError(f"no image in {folder}: supported files are {', '.join(sorted(SUFFIXES))}")
    return found


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def spread(items: Sequence[T], limit: int) -> list[T]:
    """Return at most ``limit`` of the items, spread evenly over them."""
    if len(items) <= limit:
        return list(items)
    step = (len(items) - 1) / max(1, limit - 1)
    return [items[int(index * step)] for index in range(limit)]
