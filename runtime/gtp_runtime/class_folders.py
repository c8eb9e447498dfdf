"""The class of each image in a folder with one sub-folder per class."""

from collections.abc import Collection, Sequence
from pathlib import Path

from gtp_runtime.errors import ImageError
from gtp_runtime.text import one_line

SHOWN = 10  # names that an error lists
DIGITS = 18  # of a class number; Python reads no more than some thousand


def class_indices(
    folder: Path,
    images: Sequence[Path],
    labels: Sequence[str] | None,
    label_ids: Sequence[str] | None,
    classes: int,
    by_order: bool = False,
) -> list[int] | None:
    """Return the class index of each image; None if images are in the folder itself.

    Args:
        folder: the folder, with one sub-folder per class. The name of a sub-folder is a label, a label id
            (ImageNet's n01440764) or a class index.
        images: image files in it.
        labels, label_ids: names of the model's classes, in order; None if unknown.
        classes: number of classes of the model.
        by_order: the sub-folders, in alphabetical order, are the classes 0, 1, ... whatever their names.

    Raises:
        ImageError: the names of the sub-folders are not classes; with ``by_order``, the numbers of sub-folders and of
            classes differ, or the names are classes.
    """
    if any(path.parent == folder for path in images):
        return None
    of_images = [path.relative_to(folder).parts[0] for path in images]
    classes_of = classes_of_folders(folder, set(of_images), labels, label_ids, classes, by_order)
    return [classes_of[name] for name in of_images]


def classes_of_folders(
    folder: Path,
    sub_folders: Collection[str],
    labels: Sequence[str] | None,
    label_ids: Sequence[str] | None,
    classes: int,
    by_order: bool = False,
) -> dict[str, int]:
    """Return the class of each sub-folder, by its name; arguments and errors as ``class_indices``."""
    names = sorted(sub_folders)
    indices = classes_of_names(names, labels, label_ids, classes)
    if by_order:
        indices = _by_order(folder, names, indices is not None, classes)
    if indices is None:
        raise ImageError(
            f"the sub-folders of {folder} ({listed(names)}) are not classes of this model: name them by label"
            f"{f' ({listed(labels)})' if labels else ''}, label id or class index{_remedy(names, classes)}"
        )
    return indices


def classes_of_names(
    names: Collection[str], labels: Sequence[str] | None, label_ids: Sequence[str] | None, classes: int
) -> dict[str, int] | None:
    """Return the class of each name, where all are label ids, labels or class numbers; None otherwise."""
    for known in (label_ids, labels):
        if known and set(names) <= set(known):
            places = {name: index for index, name in reversed(list(enumerate(known)))}
            return {name: places[name] for name in names}
    if all(name.isdecimal() and len(name) <= DIGITS and int(name) < classes for name in names):
        return {name: int(name) for name in names}
    return None


def _by_order(folder: Path, names: list[str], are_classes: bool, classes: int) -> dict[str, int]:
    if are_classes:
        raise ImageError(f"the sub-folders of {folder} are named by class: omit --by-order (by_order)")
    if len(names) != classes:
        raise ImageError(
            f"--by-order (by_order) needs one sub-folder per class: {folder} has {len(names)}, but the model has "
            f"{classes} classes"
        )
    return {name: index for index, name in enumerate(names)}


def _remedy(names: list[str], classes: int) -> str:
    if len(names) != classes:
        return ""
    return "; or, if they are the classes in alphabetical order, add --by-order (by_order=True)"


def listed(names: Sequence[str]) -> str:
    """The first few names, in one line."""
    return one_line(", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else ""))
