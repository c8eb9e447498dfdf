"""Makes the reference for parity: the eager model's answers, and the tokens that it keeps."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gtp_exporters.outputs import LOGITS, Outputs
from gtp_models.frame.patch import trace_tokens
from gtp_models.frame.trace import Step
from gtp_runtime.errors import ImageError
from gtp_runtime.images.class_folders import KnownClasses, Order, classes_of_folders, folder_words
from gtp_runtime.images.folders import SEPARATOR, image_names, image_path, spread
from gtp_runtime.images.preprocessing import Preprocessing
from gtp_runtime.messages import one_line
from gtp_runtime.reference import Reference

SYNTHETIC = 8
LIMIT = 64  # of the images of a folder that --data names, spread over it
CHUNK = 8


@dataclass(frozen=True)
class ReferenceImages:
    """Images of a reference: (N, H, W, 3) uint8 ``pixels``, (N,) ``labels`` where known, ``origin`` in words, a
    ``note`` for users if something is missing or assumed, and the ``class_order`` of folders where it was taken.
    """

    pixels: np.ndarray
    labels: np.ndarray | None
    origin: str
    note: str = ""
    class_order: Order | None = None


def synthetic_images(size: list[int], count: int = SYNTHETIC, seed: int = 0) -> ReferenceImages:
    """Make smooth coloured shapes: seeded noise of 6 x 6 pixels, enlarged to (height, width)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    large = [Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC) for image in small]
    return ReferenceImages(np.stack([np.asarray(image) for image in large]), None, "synthetic")


def folder_images(
    folder: Path, preprocessing: Preprocessing, known: KnownClasses, limit: int | None = LIMIT, origin: str = ""
) -> ReferenceImages:
    """Read images of a folder, at most ``limit`` spread over it, with their classes where sub-folders are classes.

    Raises:
        ImageError: no images, one that cannot be read, or folders that contradict the order of ``known``.
    """
    names = image_names(folder)
    labels, note, order = _classes(folder, names, known)
    chosen = list(range(len(names)) if limit is None else spread(range(len(names)), limit))
    pixels = np.stack([preprocessing.pixels(image_path(folder, names[index])) for index in chosen])
    return ReferenceImages(
        pixels, None if labels is None else labels[chosen], origin or f"from {one_line(folder.name)}", note, order
    )


def _classes(folder: Path, names: np.ndarray, known: KnownClasses) -> tuple[np.ndarray | None, str, Order | None]:
    """Return the images' classes, or None: a reference needs no classes, but top-1 is then unknown; a note for users,
    and the order of the folders where it was taken.
    """
    if not known.count or any(SEPARATOR not in name for name in names):  # features; no folders
        return None, "", None
    try:
        classes = classes_of_folders(folder, names, known)
    except ImageError as error:
        if known.order is not None:  # the user said so
            raise
        return None, f"the reference has no classes: {error}", None
    labels = classes.of(names).astype(np.int64)
    return labels, folder_words(classes.taken, classes.classes) if classes.order else "", classes.order


@torch.inference_mode()
def make_reference(
    model: Any,
    images: ReferenceImages,
    preprocessing: Preprocessing,
    progress: Callable[[float], None] = lambda share: None,
    outputs: Outputs = LOGITS,
) -> Reference:
    """Run the eager model, patched, on the images; ``outputs`` says what it gives."""
    answers, traces = [], []
    batches = _batches(images, preprocessing)
    for done, batch in enumerate(batches, 1):
        with trace_tokens(model) as trace:
            answers.append(outputs.of(model, batch))
        traces.append(trace)
        progress(done / len(batches))
    return Reference(
        images=images.pixels,
        outputs=_joined(outputs, answers),
        dense_outputs=None,
        labels=images.labels,
        kept=_per_layer(traces, lambda step: step.kept.int().numpy()),
        propagated=_per_layer(traces, lambda step: step.propagated.int().numpy()),
        gap=_per_layer(traces, lambda step: step.gap.float().numpy()),
        received_by=_receivers(traces),
    )


@torch.inference_mode()
def dense_outputs(
    model: Any, images: ReferenceImages, preprocessing: Preprocessing, outputs: Outputs = LOGITS
) -> dict[str, np.ndarray]:
    """Run the eager model, not patched, on the images: (N, ...) float32 by the name of the output."""
    return _joined(outputs, [outputs.of(model, batch) for batch in _batches(images, preprocessing)])


def _joined(outputs: Outputs, batches: list[tuple[Tensor, ...]]) -> dict[str, np.ndarray]:
    values = zip(*batches, strict=True)
    return {name: torch.cat(parts).numpy() for name, parts in zip(outputs.names, values, strict=True)}


def _batches(images: ReferenceImages, preprocessing: Preprocessing) -> tuple[Tensor, ...]:
    count = -(-len(images.pixels) // CHUNK)
    return torch.from_numpy(preprocessing.normalise(images.pixels)).chunk(count)


def _receivers(traces: list[list[Step]]) -> list[np.ndarray] | None:
    """Return the receivers of each layer; None if a layer that reduces has none."""
    if not any(step.received_by is not None for step in traces[0]):
        return None
    return _per_layer(
        traces, lambda step: (step.propagated if step.received_by is None else step.received_by).int().numpy()
    )


def _per_layer(traces: list[list[Step]], value: Callable[[Step], np.ndarray]) -> list[np.ndarray]:
    return [np.concatenate([value(step) for step in layer]) for layer in zip(*traces, strict=True)]
