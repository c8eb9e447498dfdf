"""Checks that the arrays of a parity pack fit each other: an empty or malformed pack proves nothing."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gtp_runtime.reference import Reference

ADDED = -1  # id of a token that a method added, the mean of those that left


def check_arrays(reference: "Reference") -> None:
    """Check shapes, types and ranges.

    Raises:
        ValueError: says which array is wrong, and how.
    """
    images, answers = reference.images, reference.answers
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not images.size:
        raise ValueError(f"images are {_described(images)}, not (N, H, W, 3) uint8 with N > 0")
    _check_answers(reference.output, answers, (len(images),))
    if reference.dense_answers is not None:
        _check_answers(f"dense_{reference.output}", reference.dense_answers, answers.shape)
    if reference.labels is not None:
        _check_labels(reference.labels, len(images), answers.shape[1] if reference.output == "logits" else None)
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


def _check_answers(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    """``shape`` is (N,) or (N, classes)."""
    if values.ndim != 2 or values.shape[: len(shape)] != shape or not values.size:
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
