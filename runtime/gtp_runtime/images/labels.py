"""The class of each image of a folder: from its sub-folders, one a class, or from a file that says it.

Sub-folders are classes as ``class_folders`` says. In a file of labels, a class is one of the model's labels, one of its
label ids (WordNet's, as n01440764), or its number from 0. The file is one of these:

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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from gtp_runtime.errors import BackendMissingError, ImageError, InputError
from gtp_runtime.images.class_folders import (
    NAMES,
    KnownClasses,
    by_name,
    by_number,
    check_order,
    classes_of_folders,
    listed,
    own_classes,
)
from gtp_runtime.images.folders import SEPARATOR, SUFFIXES, ImageSet, image_names, packed
from gtp_runtime.manifest import Manifest
from gtp_runtime.messages import one_line
from gtp_runtime.opening import check_regular, open_regular

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
    class_order: str | None = None,
) -> ImageSet:
    """Return the images below a folder, with their classes where these are known.

    A model that gives features has no classes of its own: every folder (or word of a file) is one, by its name, where
    there are two or more.

    Args:
        folder: images. Without ``labels``, its sub-folders are the classes, as ``class_folders`` says; where images lie
            in the folder itself, they have no classes.
        manifest: of the model whose classes they are.
        labels: a file that says the class of each image, as this module describes it.
        class_order: "timm" or "torchvision": how class folders are sorted (``class_folders``). None is the manifest's,
            and timm's where it says none; names of classes decide first.

    Raises:
        ImageError: no images, sub-folders that are no classes, or a file of labels that does not fit.
        InputError: a folder that is no path, ``class_order`` without sub-folders or with ``labels``.
        BackendMissingError: a file of labels that needs a package to read.
    """
    names, place = image_names(folder), Path(folder)
    check_order(class_order)
    if labels is not None:
        if class_order:
            raise InputError("class_order is of sub-folders, and labels come from a file: give one of the two")
        return ImageSet(place, names, read_classes(Path(labels), names, manifest))
    if any(SEPARATOR not in name for name in names):
        if class_order:
            raise InputError(f"--class-order (class_order) is of class folders, but images are in {place} itself")
        return ImageSet(place, names)
    if manifest.gives_features:
        own = own_classes(names, class_order)
        return ImageSet(place, names, own.of(names), own.taken) if len(own.classes) > 1 else ImageSet(place, names)
    found = classes_of_folders(place, names, known_classes(manifest), class_order)
    folders = None if found.taken == NAMES else {one_line(name): index for name, index in found.classes.items()}
    return ImageSet(place, names, found.of(names), found.taken, folders)


def known_classes(manifest: Manifest) -> KnownClasses:
    """Return the classes of a manifest's model."""
    return KnownClasses(manifest.labels, manifest.label_ids, manifest.model.named_classes, manifest.class_order)


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
    if manifest.gives_features:
        places = {word: index for index, word in enumerate(sorted(set(words)))}
        return np.array([places[word] for word in words], np.int32)
    own = known_classes(manifest)
    known = by_name(words, own) or by_number(words, own)
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
