"""The parity pack, ``reference.npz``: what eager PyTorch computed where the model was exported.

It proves parity on a device without PyTorch. Arrays: ``images`` (N, H, W, 3) uint8, each output by its name, like
``logits`` (N, classes) float32, and that of the dense model, ``dense_logits`` (``features`` and ``dense_features``
(N, dim) of a model without classifier, ``map_11`` (N, dim, rows, columns) and so on of dense outputs),
``layerL/kept`` and ``layerL/propagated`` (N, tokens) int32 original ids, ``layerL/gap`` (N,) float32,
``layerL/received_by`` (N, tokens) int32 where tokens are merged, ``labels`` (N,) int64 where the images have them.
"""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gtp_runtime.atomic import replacing
from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest import REFERENCE_NAME, FileEntry, Manifest
from gtp_runtime.messages import one_line
from gtp_runtime.opening import open_regular

LARGEST = 1 << 30  # bytes of all arrays
FREE = 1 << 24  # bytes that any archive may unpack to
RATIO = 100  # above that, bytes for one of the file: images hardly shrink, and an archive of zeros does by 1,000
MOST = 4096  # arrays
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
OTHERS = ("images", "labels")  # arrays that are no outputs
TWIN = "dense_"  # before the name of an output: the dense model's
ADDED = -1  # id of a token that a method added, the mean of those that left
UNREADABLE = (OSError, ValueError, KeyError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Reference:
    """The parity pack in memory.

    Attributes:
        images: (N, H, W, 3) uint8.
        outputs: what the eager model gave, (N, ...) by name: ``logits`` (N, classes), ``features`` (N, dim), …
        dense_outputs: likewise of the model without patch; None without a dense twin.
        labels: (N,) classes where known.
        kept, propagated, gap: one entry a layer.
        received_by: for each token that left the one it was merged into, one entry a layer like ``propagated``; None
            for methods without a single receiver.
    """

    images: np.ndarray
    outputs: dict[str, np.ndarray]
    dense_outputs: dict[str, np.ndarray] | None
    labels: np.ndarray | None
    kept: list[np.ndarray]
    propagated: list[np.ndarray]
    gap: list[np.ndarray]
    received_by: list[np.ndarray] | None = None

    @property
    def output(self) -> str:
        """The name of the first output."""
        return next(iter(self.outputs))

    @property
    def answers(self) -> np.ndarray:
        """The first output."""
        return self.outputs[self.output]

    @property
    def dense_answers(self) -> np.ndarray | None:
        """The first output of the dense model."""
        return None if self.dense_outputs is None else self.dense_outputs[self.output]

    def sample(self, count: int) -> "Reference":
        """Return the part of it for so many of its images, evenly spaced; all of it where it has no more."""
        places = np.linspace(0, len(self.images) - 1, min(count, len(self.images))).astype(int)

        def per_layer(values: list[np.ndarray] | None) -> Any:
            return None if values is None else [layer[places] for layer in values]

        def by_name(values: Mapping[str, np.ndarray] | None) -> Any:
            return None if values is None else {name: each[places] for name, each in values.items()}

        return Reference(
            images=self.images[places],
            outputs=by_name(self.outputs),
            dense_outputs=by_name(self.dense_outputs),
            labels=None if self.labels is None else self.labels[places],
            kept=per_layer(self.kept),
            propagated=per_layer(self.propagated),
            gap=per_layer(self.gap),
            received_by=per_layer(self.received_by),
        )


def read_reference(path: Path) -> Reference:
    """Read a parity pack; nothing in it is unpickled, and what it unpacks to is bounded.

    Raises:
        ManifestError: missing, damaged, too large, or with arrays that do not fit each other.
    """
    try:
        reference = _collect(load_arrays(path))
        check_arrays(reference)
    except FileNotFoundError as error:
        raise ManifestError(f"no parity pack {path}: export again") from error
    except UNREADABLE as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        raise ManifestError(f"the parity pack {path} cannot be used ({reason}): export again") from error
    return reference


def _collect(values: Mapping[str, np.ndarray]) -> Reference:
    layers = range(sum(name.endswith("/gap") for name in values))

    def per_layer(name: str) -> list[np.ndarray]:
        return [values[f"layer{layer}/{name}"] for layer in layers]

    answers = {name: value for name, value in values.items() if name not in OTHERS and "/" not in name}
    outputs = {name: value for name, value in answers.items() if not name.startswith(TWIN)}
    twins = {name.removeprefix(TWIN): value for name, value in answers.items() if name.startswith(TWIN)}
    return Reference(
        images=values["images"],
        outputs=outputs,
        dense_outputs=twins or None,
        labels=values.get("labels"),
        kept=per_layer("kept"),
        propagated=per_layer("propagated"),
        gap=per_layer("gap"),
        received_by=per_layer("received_by") if "layer0/received_by" in values else None,
    )


def check_fits(reference: Reference, manifest: Manifest, entry: FileEntry) -> None:
    """Check that a parity pack is of the export that a file (``entry``) belongs to.

    Raises:
        ManifestError: images or answers of another size, another kind of answers, other numbers of tokens that leave.
    """
    shapes = {name: list(values.shape[1:]) for name, values in reference.outputs.items()}
    pairs = (
        ("image size", list(reference.images.shape[1:3]), manifest.preprocessing.crop),
        ("outputs", shapes, {spec.name: spec.shape[1:] for spec in entry.answers}),
        ("removed tokens by layer", [ids.shape[1] for ids in reference.propagated], manifest.num_prop),
    )
    for what, actual, expected in pairs:
        if actual != expected:
            raise ManifestError(f"{REFERENCE_NAME} has {what} {actual}, but the manifest {expected}: export again")


def write_reference(reference: Reference, path: Path) -> None:
    """Write a parity pack, compressed; an earlier one stays whole if that fails."""
    twins = {TWIN + name: values for name, values in (reference.dense_outputs or {}).items()}
    arrays = {"images": reference.images, **reference.outputs, **twins}
    if reference.labels is not None:
        arrays["labels"] = reference.labels
    for layer, gap in enumerate(reference.gap):
        arrays[f"layer{layer}/kept"] = reference.kept[layer]
        arrays[f"layer{layer}/propagated"] = reference.propagated[layer]
        arrays[f"layer{layer}/gap"] = gap
        if reference.received_by is not None:
            arrays[f"layer{layer}/received_by"] = reference.received_by[layer]
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def check_arrays(reference: Reference) -> None:
    """Check shapes, types and ranges.

    Raises:
        ValueError: says which array is wrong, and how.
    """
    images = reference.images
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not images.size:
        raise ValueError(f"images are {_described(images)}, not (N, H, W, 3) uint8 with N > 0")
    _check_outputs(reference)
    if reference.labels is not None:
        classes = max(2, reference.answers.shape[1]) if reference.output == "logits" else None
        _check_labels(reference.labels, len(images), classes)
    for layer, gap in enumerate(reference.gap):
        if gap.shape != (len(images),) or gap.dtype.kind != "f" or np.isnan(gap).any():
            raise ValueError(f"layer{layer}/gap is {_described(gap)}, not ({len(images)},) floats")
    named = [(f"layer{layer}/kept", ids) for layer, ids in enumerate(reference.kept)]
    named += [(f"layer{layer}/propagated", ids) for layer, ids in enumerate(reference.propagated)]
    named += [(f"layer{layer}/received_by", ids) for layer, ids in enumerate(reference.received_by or [])]
    for name, ids in named:
        _check_ids(name, ids, len(images))
    for layer, (left, ids) in enumerate(zip(reference.propagated, reference.received_by or [], strict=False)):
        if left.shape != ids.shape:
            raise ValueError(f"layer{layer}/received_by is {_described(ids)}, but {left.shape} tokens left")
    tokens = reference.kept[0].shape[1] + reference.propagated[0].shape[1] if reference.gap else 0
    for name, ids in named:
        if ids.size and (ids.min() < ADDED or ids.max() >= tokens):
            raise ValueError(f"{name} has ids {ids.min()} to {ids.max()}, but there are {tokens} tokens")


def _check_outputs(reference: Reference) -> None:
    outputs, twins = reference.outputs, reference.dense_outputs
    if not outputs:
        raise ValueError("there are no outputs")
    for name, values in outputs.items():
        _check_answers(name, values, (len(reference.images),))
    if twins is not None and list(twins) != list(outputs):
        raise ValueError(f"the dense model has the outputs {', '.join(twins)}, this one {', '.join(outputs)}")
    for name, values in (twins or {}).items():
        _check_answers(TWIN + name, values, outputs[name].shape)


def _check_answers(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    """``shape`` is (N,), or that of the other model's."""
    axes = range(2 if name.removeprefix(TWIN) == "logits" else 1, 9)  # of logits for each pixel: four
    if values.ndim not in axes or values.shape[: len(shape)] != shape or not values.size:
        raise ValueError(f"{name} are {_described(values)}, but the others are for {shape}")
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise ValueError(f"{name} are {values.dtype} and must be finite floats")


def _check_labels(labels: np.ndarray, images: int, classes: int | None) -> None:
    if labels.shape != (images,) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {_described(labels)}, not ({images},) whole numbers")
    if labels.min() < 0 or (classes is not None and labels.max() >= classes):
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, but there are {classes} classes")


def _check_ids(name: str, ids: np.ndarray, images: int) -> None:
    if ids.ndim != 2 or len(ids) != images or ids.dtype.kind not in "iu":
        raise ValueError(f"{name} is {_described(ids)}, not ({images}, tokens) whole numbers")


def _described(values: np.ndarray) -> str:
    return f"{values.shape} {values.dtype}"


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
