"""Whether the values of a manifest mean something: types are right already, here are ranges, names and lengths.

Nothing of an artifact directory is used before these hold, so what they bound is spent on no lie.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from gtp_runtime.images.preprocessing import MAX_SIDE
from gtp_runtime.manifest.schema import EngineInfo, FileEntry, Manifest, QuantizationInfo, TensorSpec
from gtp_runtime.precisions import PRECISIONS
from gtp_runtime.text import is_text

ROLES = ("model", "dense", "reference", "data", "report")
FLAVORS = ("tensorrt", "rtx")  # of TensorRT
SOURCES = ("pretrained", "file", "random")
DTYPES = ("bool", "uint8", "int8", "int32", "int64", "float16", "float32", "float64")
MOST = 1 << 62  # of anything that is counted
MOST_CLASSES = 1 << 20
MOST_BYTES = 1 << 32  # of one tensor
DEEPEST = 32  # levels of settings and of what was measured
MOST_CHARACTERS = 4096  # of a text
LONGEST = 80  # characters of a value that an error shows
VERSION = re.compile(r"\d{1,9}(\.\d{1,9})+")

Problem = str | None


def find_problem(manifest: Manifest) -> Problem:
    """Return the first thing that is wrong, in words; None where all is well."""
    return next(filter(None, _problems(manifest)), None)


def _problems(manifest: Manifest) -> Iterator[Problem]:
    model = manifest.model
    yield from _counts("model.", {"num_classes": model.num_classes, "num_prefix": model.num_prefix}, MOST_CLASSES)
    if len(model.grid) != 2 or not all(0 < side <= MAX_SIDE for side in model.grid):
        yield f"model.grid is {_shown(model.grid)}, not two whole numbers from 1 to {MAX_SIDE}"
    yield from _texts("model.", model)
    yield from _texts("weights.", manifest.weights)
    yield _text("method", manifest.method)
    yield _known("weights.source", manifest.weights.source, SOURCES)
    for name, labels in (("labels", manifest.labels), ("label_ids", manifest.label_ids)):
        yield from _labels(name, labels, model.num_classes)
    for index, layer in enumerate(manifest.layers):
        yield from _counts(f"layers.{index}.", vars(layer))
    yield from _counts("macs.", manifest.macs)
    yield from _counts("", {"opset": manifest.opset})
    if not isinstance(manifest.reference.get("images", ""), str):
        yield f"reference.images is {_shown(manifest.reference['images'])}, not text"
    for name in ("settings", "reference", "results"):
        yield _deep(name, getattr(manifest, name))
    for name, entry in manifest.files.items():
        yield _text("files", name)
        yield from _of_file(f"files.{name}.", entry)


def _of_file(place: str, entry: FileEntry) -> Iterator[Problem]:
    yield _known(f"{place}role", entry.role, ROLES)
    yield _known(f"{place}precision", entry.precision, ("", *PRECISIONS))
    yield from _counts(place, {"size": entry.size, "macs": entry.macs, "nodes": entry.nodes})
    for name, specs in (("inputs", entry.inputs), ("outputs", entry.outputs)):
        for index, spec in enumerate(specs):
            yield from _of_tensor(f"{place}{name}.{index}.", spec)
    if entry.engine is not None:
        yield from _of_engine(f"{place}engine.", entry.engine)
    if entry.quantization is not None:
        yield from _of_quantization(f"{place}quantization.", entry.quantization)


def _of_quantization(place: str, info: QuantizationInfo) -> Iterator[Problem]:
    yield from _texts(place, info)
    yield from (_text(f"{place}kept_fp32", name) for name in info.kept_fp32)
    yield from _counts(place, {"images": info.images, "products": info.products})


def _of_tensor(place: str, spec: TensorSpec) -> Iterator[Problem]:
    yield _text(f"{place}name", spec.name)
    yield _known(f"{place}dtype", spec.dtype, DTYPES)
    if not 1 <= len(spec.shape) <= 8 or not all(0 < size < MOST_BYTES for size in spec.shape):
        yield f"{place}shape is {_shown(spec.shape)}, not 1 to 8 positive whole numbers"
    elif spec.dtype in DTYPES and prod(spec.shape) * np.dtype(spec.dtype).itemsize > MOST_BYTES:
        yield f"{place}shape is {_shown(spec.shape)}, more than {MOST_BYTES} bytes"


def _of_engine(place: str, engine: EngineInfo) -> Iterator[Problem]:
    yield from _texts(place, engine)
    yield from (_text(f"{place}targets", name) for name in engine.targets)
    yield _known(f"{place}flavor", engine.flavor, FLAVORS)
    if not VERSION.match(engine.version):
        yield f"{place}version is {_shown(engine.version)}, not a version"
    yield from _counts(place, {"layers": engine.layers})
    for name in ("options", "inspector"):
        yield _deep(f"{place}{name}", getattr(engine, name))


def _counts(place: str, values: Mapping[str, int], most: int = MOST) -> Iterator[Problem]:
    for name, value in values.items():
        if not 0 <= value <= most:
            yield f"{place}{_shown(name, str)} is {_shown(value)}, not a whole number from 0 to {most}"


def _labels(name: str, labels: list[str] | None, classes: int) -> Iterator[Problem]:
    if labels is None:
        return
    if len(labels) != classes:
        yield f"{name} has {len(labels)} names for {classes} classes"
    yield from (_text(f"{name}.{index}", label) for index, label in enumerate(labels))


def _texts(place: str, entry: object) -> Iterator[Problem]:
    """Check the fields of an entry that are text."""
    yield from (_text(f"{place}{name}", value) for name, value in vars(entry).items() if isinstance(value, str))


def _text(name: str, value: str) -> Problem:
    """Texts are shown on terminals and in logs, and so hold no control characters, nor pages."""
    if len(value) > MOST_CHARACTERS:
        return f"{name} has {len(value)} characters, at most {MOST_CHARACTERS} are read"
    return None if is_text(value) else f"{name} is {_shown(value)}, which holds control characters"


def _known(name: str, value: str, known: tuple[str, ...]) -> Problem:
    return None if value in known else f"{name} is {_shown(value)}, not one of {', '.join(filter(None, known))}"


def _deep(name: str, value: Any) -> Problem:
    return None if _fits(value, DEEPEST) else f"{name} is nested more than {DEEPEST} levels deep"


def _fits(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not inner or (levels > 0 and all(_fits(entry, levels - 1) for entry in inner))


def _shown(value: Any, form: Callable[[Any], str] = repr) -> str:
    return form(value)[:LONGEST] if not isinstance(value, int) or abs(value) <= MOST else "a number of many digits"
