"""A folder of images with their classes: what accuracy is measured on, however many there are."""

import hashlib
import os
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from gtp_runtime.class_folders import classes_of_folders
from gtp_runtime.errors import InputError
from gtp_runtime.images import SEPARATOR, image_names, image_path, spread
from gtp_runtime.label_files import read_classes
from gtp_runtime.manifest import Manifest


@dataclass(frozen=True)
class ImageSet:
    """Images and their classes, without an object for each; made by ``find_image_set``.

    Attributes:
        folder: where the images are.
        names: (N,) bytes, N > 0, as ``images.image_names`` returns them.
        classes: (N,) int32; None where they are unknown.
        by_order: the class of each sub-folder where they were taken by alphabetical order; None otherwise.
    """

    folder: Path
    names: np.ndarray
    classes: np.ndarray | None = None
    by_order: dict[str, int] | None = None

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


def find_image_set(
    folder: str | PathLike[str],
    manifest: Manifest,
    labels: str | PathLike[str] | None = None,
    *,
    by_order: bool = False,
) -> ImageSet:
    """Return the images below a folder, with their classes where these are known.

    Args:
        folder: images. Without ``labels``, its sub-folders are the classes, named as ``class_indices`` says; where
            images lie in the folder itself, they have no classes.
        manifest: of the model whose classes they are.
        labels: a file that says the class of each image, as ``label_files`` describes it.
        by_order: sub-folders in alphabetical order are the classes 0, 1, ..., whatever their names.

    Raises:
        ImageError: no images, sub-folders that are no classes, or a file of labels that does not fit.
        InputError: a folder that is no path, ``by_order`` without sub-folders or with ``labels``.
        BackendMissingError: a file of labels that needs a package to read.
    """
    names, place = image_names(folder), Path(folder)
    if labels is not None:
        if by_order:
            raise InputError("by order takes sub-folders for classes, and labels come from a file: give one of the two")
        return ImageSet(place, names, read_classes(Path(labels), names, manifest))
    flat = any(SEPARATOR not in name for name in names)
    if flat and by_order:
        raise InputError(f"--by-order (by_order) needs one sub-folder per class, but images are in {place} itself")
    return ImageSet(place, names) if flat else _by_folder(place, names, manifest, by_order)


def _by_folder(folder: Path, names: np.ndarray, manifest: Manifest, by_order: bool) -> ImageSet:
    own = {name.partition(SEPARATOR)[0] for name in names}
    of_name = {os.fsdecode(name): name for name in own}
    known = (manifest.labels, manifest.label_ids, manifest.model.num_classes)
    indices = classes_of_folders(folder, of_name, *known, by_order)
    classes = {of_name[name]: index for name, index in indices.items()}
    found = np.fromiter((classes[name.partition(SEPARATOR)[0]] for name in names), np.int32, len(names))
    return ImageSet(folder, names, found, indices if by_order else None)
