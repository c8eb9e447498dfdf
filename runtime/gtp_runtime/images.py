"""Folders of images: all of them, or with the class that each sub-folder names."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from gtp_runtime.errors import ImageError

T = TypeVar("T")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}


def find_images(folder: Path) -> list[Path]:
    """Return all image files below a folder, in alphabetical order.

    Raises:
        ImageError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise ImageError(f"no folder {folder}: give a folder of images")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ImageError(f"no image in {folder}: it takes {', '.join(sorted(SUFFIXES))}")
    return found


def spread(items: Sequence[T], limit: int) -> list[T]:
    """Return at most ``limit`` of the items, spread evenly over them."""
    if len(items) <= limit:
        return list(items)
    step = (len(items) - 1) / max(1, limit - 1)
    return [items[int(index * step)] for index in range(limit)]


def class_indices(
    folder: Path, images: Sequence[Path], labels: Sequence[str] | None, label_ids: Sequence[str] | None, classes: int
) -> list[int] | None:
    """Return the class of each image of a folder with one sub-folder a class; None where there are none.

    A sub-folder is called like a label, like a label id (ImageNet's n01440764), or by the class's number;
    with as many sub-folders as classes any names will do, in alphabetical order.

    Raises:
        ImageError: sub-folders whose names are none of these.
    """
    names = [path.relative_to(folder).parts[0] for path in images]
    if any(path.parent == folder for path in images):
        return None
    indices = _index(sorted(set(names)), labels, label_ids, classes)
    if indices is None:
        raise ImageError(
            f"the sub-folders of {folder} ({', '.join(sorted(set(names))[:5])}, …) are no classes of this model: "
            "name them like its labels, its label ids, or by class number"
        )
    return [indices[name] for name in names]


def _index(
    names: list[str], labels: Sequence[str] | None, label_ids: Sequence[str] | None, classes: int
) -> dict[str, int] | None:
    for known in (label_ids, labels):
        if known and set(names) <= set(known):
            return {name: list(known).index(name) for name in names}
    if all(name.isdecimal() and int(name) < classes for name in names):
        return {name: int(name) for name in names}
    return {name: index for index, name in enumerate(names)} if len(names) == classes else None
