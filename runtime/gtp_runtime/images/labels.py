"""The class of each image of a folder: from its sub-folders, one a class, or from a file that says it.

A class is one of the model's labels, one of its label ids (WordNet's, as n01440764), or its number from 0: sub-folders
are named so. A file of labels is one of these:

- A table (``.csv``, ``.tsv``, or columns separated by blanks, as Caffe's ``val.txt``): the image's path below the
  folder, its file name, or that without ending; then its class. A first line that names columns is understood: Kaggle's
  ``LOC_val_solution.csv`` of ImageNet is such a table.
- A list, one class a line, for the images in alphabetical order.
- ImageNet's ``ILSVRC2012_validation_ground_truth.txt``, such a list of its own ids: the development kit's ``meta.mat``
  must stand beside it and says what they mean (SciPy reads it).
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from gtp_runtime.errors import BackendMissingError, ImageError, InputError
from gtp_runtime.images.folders import SEPARATOR, SUFFIXES, ImageSet, image_names, packed
from gtp_runtime.manifest import Manifest
from gtp_runtime.opening import check_regular, open_regular
from gtp_runtime.text import one_line

TIMM, TORCHVISION = ORDERS = ("timm", "torchvision")  # of class folders
SHOWN = 10  # names that an error lists
DIGITS = 18  # of a class number; Python reads no more than some thousand
ILSVRC, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
IMAGE_COLUMNS = ("image", "imageid", "image_id", "file", "filename", "file_name", "path", "name", "id")
CLASS_COLUMNS = ("label", "class", "target", "predictionstring")
LARGEST = 1 << 28  # bytes of a file of labels
LARGEST_NAMES = 1 << 28  # bytes of the names in it, each as long as the longest, as they are in memory
MOST_CLASSES = 1 << 20  # different ones
BOXES = "predictionstring"  # Kaggle's column: the class, then boxes


def find_image_set(
    folder: str | PathLike[str],
    manifest: Manifest,
    labels: str | PathLike[str] | None = None,
    *,
    by_order: bool | str = False,
) -> ImageSet:
    """Return the images below a folder, with their classes where these are known.

    Args:
        folder: images. Without ``labels``, its sub-folders are the classes, named as ``class_indices`` says; where
            images lie in the folder itself, they have no classes.
        manifest: of the model whose classes they are.
        labels: a file that says the class of each image, as this module describes it.
        by_order: sub-folders in alphabetical order are the classes 0, 1, ..., whatever their names. "timm" and
            "torchvision" are the orders of these libraries' image folders, also where folders are named by class:
            the last folder of each path in natural order (2 before 10), or the first one in plain order.

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


def _by_folder(folder: Path, names: np.ndarray, manifest: Manifest, by_order: bool | str) -> ImageSet:
    def own_folder(name: bytes) -> bytes:
        return name.split(SEPARATOR)[-2] if by_order == TIMM else name.partition(SEPARATOR)[0]

    own = {own_folder(name) for name in names}
    of_name = {os.fsdecode(name): name for name in own}
    known = (manifest.labels, manifest.label_ids, manifest.model.named_classes)
    indices = classes_of_folders(folder, of_name, *known, by_order)
    classes = {of_name[name]: index for name, index in indices.items()}
    found = np.fromiter((classes[own_folder(name)] for name in names), np.int32, len(names))
    return ImageSet(folder, names, found, indices if by_order else None)


def class_indices(
    folder: Path,
    images: Sequence[Path],
    labels: Sequence[str] | None,
    label_ids: Sequence[str] | None,
    classes: int,
    by_order: bool | str = False,
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
    by_order: bool | str = False,
) -> dict[str, int]:
    """Return the class of each sub-folder, by its name; arguments and errors as ``class_indices``."""
    names = sorted(sub_folders)
    indices = None if by_order in ORDERS else classes_of_names(names, labels, label_ids, classes)
    if by_order:
        indices = _by_order(folder, names, indices is not None, classes, by_order)
    if indices is None:
        raise ImageError(
            f"the sub-folders of {folder} ({listed(names)}) are not classes of this model: name them by label"
            f"{f' ({listed(labels)})' if labels else ''}, label id or class index{_remedy(names, classes)}"
        )
    return indices


def classes_of_names(
    names: Collection[str], labels: Sequence[str] | None, label_ids: Sequence[str] | None, classes: int
) -> dict[str, int] | None:
    """Return the class of each name, where all are label ids, labels or class numbers; None otherwise.

    Raises:
        ImageError: a name that several classes have.
    """
    for known in (label_ids, labels):
        if known and set(names) <= set(known):
            places = {name: index for index, name in enumerate(known)}
            _check_unique(names, known, label_ids)
            return {name: places[name] for name in names}
    if all(name.isdecimal() and len(name) <= DIGITS and int(name) < classes for name in names):
        return {name: int(name) for name in names}
    return None


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


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts numbers in names by their value, as timm does."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name.lower())]


def _by_order(
    folder: Path, names: list[str], are_classes: bool, classes: int, order: bool | str = True
) -> dict[str, int]:
    if are_classes and order not in ORDERS:
        raise ImageError(f"the sub-folders of {folder} are named by class: omit --by-order (by_order)")
    if len(names) != classes:
        raise ImageError(
            f"--by-order (by_order) needs one sub-folder per class: {folder} has {len(names)}, but the model has "
            f"{classes} classes"
        )
    ordered = sorted(names, key=_natural) if order == TIMM else names
    return {name: index for index, name in enumerate(ordered)}


def _remedy(names: list[str], classes: int) -> str:
    if len(names) != classes:
        return ""
    return "; or, if they are the classes in alphabetical order, add --by-order (by_order=True)"


def listed(names: Sequence[str]) -> str:
    """The first few names, in one line."""
    return one_line(", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else ""))


@dataclass(frozen=True)
class Lines:
    """What a file says: (N,) bytes ``images`` (None for a list), the distinct ``words`` for classes, and for each line
    which of them it says, (N,) int32.
    """

    images: np.ndarray | None
    words: list[str]
    said: np.ndarray


def read_classes(path: Path, names: np.ndarray, manifest: Manifest) -> np.ndarray:
    """Return the class of each image, (N,) int32.

    Args:
        path: the file.
        names: the images, as ``folders.image_names`` returns them.
        manifest: of the model whose classes they are.

    Raises:
        ImageError: a file that cannot be read, an image that it does not name, a class that the model does not have.
        BackendMissingError: ``meta.mat`` without SciPy.
    """
    try:
        lines = _read(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImageError(
            f"cannot read the labels {path}: {one_line(getattr(error, 'strerror', None) or error)}"
        ) from error
    classes = _classes(path, _meanings(path, lines.words), manifest)
    said = classes[lines.said]
    if lines.images is None:
        if len(said) != len(names):
            raise ImageError(f"{path} lists {len(said)} classes for {len(names)} images: it takes one line an image")
        return said
    return said[_rows(path, lines.images, said, names)]


def _read(path: Path) -> Lines:
    words: dict[str, int] = {}
    said: list[np.ndarray] = []
    listing = True

    def images() -> Iterator[bytes]:
        nonlocal listing
        block: list[int] = []
        longest = 1
        for number, (image, word) in enumerate(_pairs(path), 1):
            listing = listing and image is None
            block.append(words.setdefault(word, len(words)))
            if len(block) == 1 << 12:
                said.append(np.array(block, np.int32))
                block.clear()
            name = os.fsencode(image or "").replace(b"/", SEPARATOR)
            longest = max(longest, len(name))
            _check_sizes(path, number * longest, len(words))
            yield name
        said.append(np.array(block, np.int32))

    found = packed(images())
    if not len(found):
        raise ImageError(f"{path} holds no labels")
    return Lines(None if listing else found, list(words), np.concatenate(said))


def _check_sizes(path: Path, names: int, words: int) -> None:
    """Check what the lines so far take in memory.

    Raises:
        ImageError: too much.
    """
    if names > LARGEST_NAMES:
        raise ImageError(f"{path} has names that are too long: they take more than {LARGEST_NAMES} bytes of memory")
    if words > MOST_CLASSES:
        raise ImageError(f"{path} names more than {MOST_CLASSES} classes: each line has an image, then its class")


def _pairs(path: Path) -> Iterator[tuple[str | None, str]]:
    """Yield image and class of each line; None for the image where a line holds a class alone."""
    with open_regular(path, LARGEST) as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as file:
        rows: Iterator[list[str]] = (row for row in _rows_of(path, file) if row)
        first = next(rows, [])
        columns = _columns(first)
        if columns is None:
            columns = (0, 1) if len(first) > 1 else (None, 0)
            rows = _chain(first, rows)
        image, label = columns
        boxes = len(first) > 1 and first[label].strip().lower() == BOXES
        for row in rows:
            if len(row) <= max(image or 0, label):
                raise ImageError(f"{path} has a line without a class: {' '.join(row)!r:.80}")
            word = row[label].strip()
            yield (None if image is None else row[image].strip()), word.partition(" ")[0] if boxes else word


def _chain(first: list[str], rows: Iterable[list[str]]) -> Iterator[list[str]]:
    if first:
        yield first
    yield from rows


def _rows_of(path: Path, file: Iterable[str]) -> Iterator[list[str]]:
    delimiter = {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower())
    if delimiter is not None:
        yield from csv.reader(file, delimiter=delimiter, strict=True)
        return
    for line in file:
        words = line.split(None, 1)
        is_pair = len(words) > 1 and Path(words[0]).suffix.lower() in SUFFIXES
        yield [words[0], words[1].strip()] if is_pair else [line.strip()] if words else []


def _columns(header: list[str]) -> tuple[int | None, int] | None:
    """Return the columns of image and class, where a first line names them."""
    names = [cell.strip().lower() for cell in header]
    image = next((names.index(name) for name in IMAGE_COLUMNS if name in names), None)
    label = next((names.index(name) for name in CLASS_COLUMNS if name in names), None)
    if label is None or (len(names) > 1 and image is None):
        return None
    return image, label


def _meanings(path: Path, words: list[str]) -> list[str]:
    """Return what stands for a class: the words themselves, or WordNet's ids in place of ImageNet's own."""
    if path.name != ILSVRC:
        return words
    ids = _ilsvrc_ids(path.with_name(META))
    unknown = [word for word in words if word not in ids]
    if unknown:
        raise ImageError(f"{path} names classes that {META} beside it does not hold: {listed(unknown)}")
    return [ids[word] for word in words]


def _ilsvrc_ids(path: Path) -> dict[str, str]:
    """Read WordNet's id of each of ImageNet's own ids."""
    if not path.is_file():
        raise ImageError(f"{ILSVRC} needs the development kit's {META} beside it, which says what its numbers mean")
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise BackendMissingError(f"scipy is not installed, which reads {path.name}: pip install scipy") from error
    try:
        check_regular(path)
        synsets = loadmat(str(path), squeeze_me=True)["synsets"]
        return {str(int(number)): str(name) for number, name in zip(synsets["ILSVRC2012_ID"], synsets["WNID"])}  # noqa: B905
    except Exception as error:  # SciPy has no one exception for files that are damaged
        raise ImageError(f"cannot read {path}: it is not the development kit's {META}") from error


def _classes(path: Path, words: list[str], manifest: Manifest) -> np.ndarray:
    known = classes_of_names(words, manifest.labels, manifest.label_ids, manifest.model.named_classes)
    if known is None:
        raise ImageError(
            f"{path} holds classes that this model does not have (it says {listed(words)}): give its labels"
            f"{f' ({listed(manifest.labels)})' if manifest.labels else ''}, its label ids, or class numbers from 0"
        )
    return np.array([known[word] for word in words], np.int32)


def _rows(path: Path, rows: np.ndarray, classes: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Return the row of each image: by its path, by its file name, or by that without ending, where these differ.

    Raises:
        ImageError: an image without a row, or with rows of several ``classes``.
    """
    order = np.argsort(rows, kind="stable")
    ordered, missing = rows[order], names
    for key in (lambda name: name, _file_name, _stem):
        keys = packed(key(name) for name in names)
        places = np.minimum(np.searchsorted(ordered, keys), len(rows) - 1)
        lacking = ordered[places] != keys
        if not lacking.any() and len(np.unique(keys)) == len(keys):
            _check_one_class(path, ordered, classes[order], keys)
            return np.asarray(order[places])
        missing = min(names[lacking] if lacking.any() else names, missing, key=len)
    name = one_line(os.fsdecode(missing[0].replace(SEPARATOR, b"/")))
    raise ImageError(f"{path} says no class of {name}: it takes a line for every image of the folder")


def _check_one_class(path: Path, ordered: np.ndarray, classes: np.ndarray, keys: np.ndarray) -> None:
    """Raise ``ImageError`` where rows of the same image, next to each other, say several classes."""
    differ = (ordered[1:] == ordered[:-1]) & (classes[1:] != classes[:-1])
    twice = np.intersect1d(ordered[1:][differ], keys)
    if len(twice):
        name = one_line(os.fsdecode(twice[0].replace(SEPARATOR, b"/")))
        raise ImageError(f"{path} says several classes of {name}: an image has one; remove the other lines")


def _file_name(name: bytes) -> bytes:
    return name.rpartition(SEPARATOR)[2]


def _stem(name: bytes) -> bytes:
    return os.path.splitext(_file_name(name))[0]
