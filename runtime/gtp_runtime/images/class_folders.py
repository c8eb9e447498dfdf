"""Which class an image folder is: by its name where the model has names, else by its place in an order.

Folders are sorted as timm's and torchvision's image folders sort them, which is what the model was trained with:

- timm: the last folder of each path is the class, in natural order (2 before 10).
- torchvision: the first folder of each path is the class, in plain order (10 before 2).
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from gtp_runtime.errors import ImageError, InputError
from gtp_runtime.images.folders import SEPARATOR
from gtp_runtime.messages import one_line

Order = Literal["timm", "torchvision"]
ORDERS: tuple[Order, ...] = get_args(Order)
TIMM, TORCHVISION = ORDERS
NAMES, NUMBERS = "names", "numbers"
SHOWN = 10  # names that a message lists
DIGITS = 18  # of a class number; Python reads no more than some thousand


@dataclass(frozen=True)
class KnownClasses:
    """The classes of a model.

    Attributes:
        labels, label_ids: their names and further ids, in order; None where unknown.
        count: how many there are; two for one logit.
        order: "timm" or "torchvision", where the model is known to be trained on folders in this order.
    """

    labels: Sequence[str] | None
    label_ids: Sequence[str] | None
    count: int
    order: str | None = None


@dataclass(frozen=True)
class FolderClasses:
    """The class of each image folder.

    Attributes:
        taken: what decided: "names" (labels or label ids), "numbers" (class numbers from 0), "timm" or "torchvision".
        classes: the class of each folder by its name, in the order of the classes.
        by_path: the same by the folder's path, as ``image_names`` writes it.
    """

    taken: str
    classes: dict[str, int]
    by_path: dict[bytes, int]

    @property
    def order(self) -> Order | None:
        """The order that decided; None where names or numbers did."""
        return next((order for order in ORDERS if order == self.taken), None)

    def of(self, names: Iterable[bytes]) -> np.ndarray:
        """Return the class of each image, (N,) int32; ``names`` are those of ``image_names``."""
        return np.fromiter((self.by_path[_folder(name)] for name in names), np.int32)


Rule = Callable[[Collection[str], KnownClasses], dict[str, int] | None]


def check_order(order: str | None) -> None:
    """Raise ``InputError`` for an order that there is not."""
    if order is not None and order not in ORDERS:
        raise InputError(f"class_order={order!r} is unknown: choose one of {', '.join(ORDERS)}")


def classes_of_folders(
    folder: Path, names: Iterable[bytes], known: KnownClasses, order: str | None = None
) -> FolderClasses:
    """Return the class of each folder that holds images.

    Names decide where all folders have one of the model. Without an ``order``, and where the model has no names,
    folders are in timm's order if there is one for each class, and else class numbers.

    Args:
        folder: where the images are; for messages.
        names: of the images, as ``image_names`` returns them, none in ``folder`` itself.
        known: the model's classes.
        order: "timm" or "torchvision"; None is that of ``known``.

    Raises:
        ImageError: folders that are no classes of the model, that have names at both ends of their paths, or whose
            ``order`` contradicts their names.
        InputError: an unknown ``order``.
    """
    check_order(order)
    paths = {_folder(name) for name in names}
    levels: dict[str, dict[bytes, str]] = {
        TIMM: {path: _last(path) for path in paths},
        TORCHVISION: {path: _first(path) for path in paths},
    }
    order = order or known.order
    if order is not None:
        return _in_order(folder, levels[order], known, order)
    if found := _by_level(folder, levels, known, by_name):
        return _taken(NAMES, *found)
    if known.labels is None and len(set(levels[TIMM].values())) == known.count:
        return _in_order(folder, levels[TIMM], known, TIMM)
    if found := _by_level(folder, levels, known, by_number):
        return _taken(NUMBERS, *found)
    raise ImageError(_no_classes(folder, levels, known))


def own_classes(names: Iterable[bytes], order: str | None = None) -> FolderClasses:
    """Return a class for each folder of another name, for a model that has no classes of its own.

    Args:
        names: of the images, as ``image_names`` returns them, none in the folder itself.
        order: "torchvision": the first folder of each path is the class; else the last one.

    Raises:
        InputError: an unknown ``order``.
    """
    check_order(order)
    level = {path: (_first if order == TORCHVISION else _last)(path) for path in map(_folder, names)}
    return _taken(NAMES, {name: index for index, name in enumerate(sorted(set(level.values())))}, level)


def folder_words(taken: str | None, classes: Mapping[str, int] | None) -> str:
    """Say in words which classes folders are; "" where nothing was taken from folders.

    Args:
        taken: as ``FolderClasses.taken``.
        classes: the class of each folder, by its name.
    """
    if taken is None:
        return ""
    if taken in (NAMES, NUMBERS) or classes is None:
        return f"classes by the {'numbers' if taken == NUMBERS else 'names'} of the folders"
    mapping = ", ".join(f"{one_line(name, 60)} = {index}" for name, index in list(classes.items())[:SHOWN])
    more = ", …" if len(classes) > SHOWN else ""
    other = TORCHVISION if taken == TIMM else TIMM
    differs = sorted(classes, key=_key(other)) != list(classes)
    hint = f"; if it was trained in {other}'s order, which is another, say --class-order {other}" if differs else ""
    return f"classes by {taken}'s order of the folders: {mapping}{more}{hint}"


def by_name(names: Collection[str], known: KnownClasses) -> dict[str, int] | None:
    """Return the class of each name, where all are label ids or all are labels; None otherwise.

    Raises:
        ImageError: a name that several classes have.
    """
    for own in (known.label_ids, known.labels):
        if own and set(names) <= set(own):
            _check_unique(names, own, known.label_ids)
            places = {name: index for index, name in enumerate(own)}
            return {name: places[name] for name in names}
    return None


def by_number(names: Collection[str], known: KnownClasses) -> dict[str, int] | None:
    """Return the class of each name, where all are class numbers from 0; None otherwise."""
    if all(name.isdecimal() and len(name) <= DIGITS and int(name) < known.count for name in names):
        return {name: int(name) for name in names}
    return None


def listed(names: Sequence[str]) -> str:
    """The first few names, in one line."""
    return one_line(", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else ""))


def _by_level(
    folder: Path, levels: Mapping[str, Mapping[bytes, str]], known: KnownClasses, rule: Rule
) -> tuple[dict[str, int], Mapping[bytes, str]] | None:
    """Return the classes by the last or the first folders' names, and these names; None where a rule knows neither."""
    found = [(classes, level) for level in levels.values() if (classes := rule(set(level.values()), known)) is not None]
    if len(found) == 2:
        (last, lasts), (first, firsts) = found
        both = next((path for path in sorted(lasts) if last[lasts[path]] != first[firsts[path]]), None)
        if both is not None:
            raise ImageError(
                f"the folder {one_line(os.fsdecode(both.replace(SEPARATOR, b'/')), 80)} of {folder} has names of two "
                "classes: say --class-order timm (the last folder is the class) or torchvision (the first one)"
            )
    return found[0] if found else None


def _in_order(folder: Path, level: Mapping[bytes, str], known: KnownClasses, order: str) -> FolderClasses:
    names = sorted(set(level.values()))
    named = by_name(names, known)
    if named is not None and len(names) != known.count:
        return _taken(NAMES, named, level)
    if len(names) != known.count:
        raise ImageError(
            f"{order}'s order of class folders needs one for each class: {folder} has {len(names)} "
            f"({listed(names)}), but the model has {known.count} classes"
        )
    ordered = {name: index for index, name in enumerate(sorted(names, key=_key(order)))}
    if named is None or named == ordered:
        return _taken(order if named is None else NAMES, ordered, level)
    wrong = next(name for name in names if named[name] != ordered[name])
    raise ImageError(
        f"the model's class {named[wrong]} is called {one_line(wrong, 60)!r}, and in {order}'s order the folder of "
        f"{folder} is class {ordered[wrong]}: say the other --class-order, or export with the right class names"
    )


def _taken(taken: str, classes: Mapping[str, int], level: Mapping[bytes, str]) -> FolderClasses:
    by_class = dict(sorted(classes.items(), key=lambda entry: entry[1]))
    return FolderClasses(taken, by_class, {path: classes[name] for path, name in level.items()})


def _no_classes(folder: Path, levels: Mapping[str, Mapping[bytes, str]], known: KnownClasses) -> str:
    names = sorted(set(levels[TIMM].values()))
    orders = [order for order in ORDERS if len(set(levels[order].values())) == known.count]
    labels = f" ({listed(known.labels)})" if known.labels else ""
    remedy = f"; or, if they are its classes in order, say --class-order {' or '.join(orders)}" if orders else ""
    return (
        f"the sub-folders of {folder} ({listed(names)}) are not classes of this model, which has {known.count}: name "
        f"them by label{labels}, label id or class number{remedy}"
    )


def _check_unique(names: Collection[str], known: Sequence[str], label_ids: Sequence[str] | None) -> None:
    """Raise ``ImageError`` for a name that several classes have, as two of ImageNet's are called crane."""
    counts = Counter(known)
    shared = next((name for name in sorted(names) if counts[name] > 1), None)
    if shared is None:
        return
    numbers = [index for index, name in enumerate(known) if name == shared]
    ids = f"label ids ({', '.join(label_ids[index] for index in numbers)}) or " if label_ids else ""
    raise ImageError(
        f"{one_line(shared, 60)!r} is the name of the classes {', '.join(map(str, numbers))}: name all classes by "
        f"{ids}class numbers"
    )


def _key(order: str) -> Callable[[str], list[tuple[int, str]]]:
    return _natural if order == TIMM else lambda name: [(0, name)]


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts numbers in names by their value, as timm does."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name.lower())]


def _folder(name: bytes) -> bytes:
    """Return the path of an image's folder."""
    return name.rpartition(SEPARATOR)[0]


def _last(path: bytes) -> str:
    return os.fsdecode(path.rpartition(SEPARATOR)[2])


def _first(path: bytes) -> str:
    return os.fsdecode(path.partition(SEPARATOR)[0])
