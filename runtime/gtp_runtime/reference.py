"""The parity pack, ``reference.npz``: what eager PyTorch computed where the model was exported.

It proves parity on a device without PyTorch. Arrays: ``images`` (N, H, W, 3) uint8, ``logits`` and
``dense_logits`` (N, classes) float32 (``features`` and ``dense_features`` (N, dim) of a model without classifier),
``layerL/kept`` and ``layerL/propagated`` (N, tokens) int32 original ids, ``layerL/gap`` (N,) float32,
``layerL/received_by`` (N, tokens) int32 where tokens are merged, ``labels`` (N,) int64 where the images have them.
"""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gtp_runtime.atomic import replacing
from gtp_runtime.errors import ManifestError
from gtp_runtime.npz import load_arrays
from gtp_runtime.reference_check import check_arrays
from gtp_runtime.text import one_line

UNREADABLE = (OSError, ValueError, KeyError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Reference:
    """The parity pack in memory.

    Attributes:
        images: (N, H, W, 3) uint8.
        answers: what the eager model gave, (N, classes) logits or (N, dim) features.
        dense_answers: likewise of the model without patch; None without a dense twin.
        labels: (N,) classes where known.
        kept, propagated, gap: one entry a layer.
        output: what the answers are: "logits" or "features".
        received_by: for each token that left the one it was merged into, one entry a layer like ``propagated``; None
            for methods without a single receiver.
    """

    images: np.ndarray
    answers: np.ndarray
    dense_answers: np.ndarray | None
    labels: np.ndarray | None
    kept: list[np.ndarray]
    propagated: list[np.ndarray]
    gap: list[np.ndarray]
    output: str = "logits"
    received_by: list[np.ndarray] | None = None


def read_reference(path: Path) -> Reference:
    """Read a parity pack; nothing in it is unpickled, and what it unpacks to is bounded (``gtp_runtime.npz``).

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

    output = "features" if "features" in values else "logits"
    return Reference(
        images=values["images"],
        answers=values[output],
        dense_answers=values.get(f"dense_{output}"),
        labels=values.get("labels"),
        kept=per_layer("kept"),
        propagated=per_layer("propagated"),
        gap=per_layer("gap"),
        output=output,
        received_by=per_layer("received_by") if "layer0/received_by" in values else None,
    )


def write_reference(reference: Reference, path: Path) -> None:
    """Write a parity pack, compressed; an earlier one stays whole if that fails."""
    arrays = {"images": reference.images, reference.output: reference.answers}
    for name, value in ((f"dense_{reference.output}", reference.dense_answers), ("labels", reference.labels)):
        if value is not None:
            arrays[name] = value
    for layer, gap in enumerate(reference.gap):
        arrays[f"layer{layer}/kept"] = reference.kept[layer]
        arrays[f"layer{layer}/propagated"] = reference.propagated[layer]
        arrays[f"layer{layer}/gap"] = gap
        if reference.received_by is not None:
            arrays[f"layer{layer}/received_by"] = reference.received_by[layer]
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
