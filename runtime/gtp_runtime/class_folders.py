"""The class of each image in a folder with one sub-folder per class."""

from collections.abc import Sequence
from pathlib import Path

from gtp_runtime.errors import ImageError

SHOWN = 10  # names that an error lists


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
    names = sorted(set(of_images))
    indices = _by_name(names, labels, label_ids, classes)
    if by_order:
        indices = _by_order(folder, names, indices is not None, classes)
    if indices is None:
        raise ImageError(
            f"the sub-folders of {folder} ({_listed(names)}) are not classes of this model: name them by label"
            f"{f' ({_listed(labels)})' if labels else ''}, label id or class index{_remedy(names, classes)}"
        )
    return [indices[name] for name in of_images]


def _by_name(
    names: list[str], labels: Sequence[str] | None, label_ids: Sequence[str] | None, classes: int
) -> dict[str, int] | None:
    for known in (label_ids, labels):
        if known and set(names) <= set(known):
            return {name: list(known).index(name) for name in names}
    if all(name.isdecimal() and int(name) < classes for name in names):
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


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
