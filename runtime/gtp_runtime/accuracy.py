"""Accuracy on an image folder, compared with the dense baseline."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gtp_runtime.measures import divergence, hits, standard_error


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a file and of its dense baseline on the same images; shares are in 0..1.

    Standard errors (``_se``) are those of the mean over the images, None for a single image.

    Attributes:
        images: number of images.
        top1, top5: share of images whose class is predicted first, or among the first five; None without classes.
        top1_se: standard error of ``top1``.
        dense_top1, dense_top5: the same for the dense baseline; None without one, or without classes.
        top1_drop: ``dense_top1 - top1``.
        top1_drop_se: standard error of ``top1_drop``, paired: of the differences image by image.
        agreement: share of images with the same predicted class as the dense baseline; None without one.
        divergence: mean Kullback-Leibler divergence of the dense to the file's class probabilities, in nats.
        divergence_se: standard error of ``divergence``.
        by_order: class of each sub-folder, if they were assigned by alphabetical order; else None.
    """

    images: int
    top1: float | None = None
    top1_se: float | None = None
    top5: float | None = None
    dense_top1: float | None = None
    dense_top5: float | None = None
    top1_drop: float | None = None
    top1_drop_se: float | None = None
    agreement: float | None = None
    divergence: float | None = None
    divergence_se: float | None = None
    by_order: dict[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def measure(
    logits: np.ndarray,
    dense: np.ndarray | None,
    labels: np.ndarray | None,
    by_order: dict[str, int] | None = None,
) -> Accuracy:
    """Measure accuracy from (N, classes) logits of a file, N > 0, and of its dense baseline, and from (N,) classes."""
    values: dict[str, Any] = {}
    if labels is not None:
        right = hits(logits, labels)
        values |= {"top1": _mean(right), "top1_se": standard_error(right), "top5": _mean(hits(logits, labels, 5))}
    if dense is not None:
        apart = divergence(dense, logits)
        values |= {"agreement": _mean(logits.argmax(1) == dense.argmax(1))}
        values |= {"divergence": _mean(apart), "divergence_se": standard_error(apart)}
    if dense is not None and labels is not None:
        dense_right = hits(dense, labels)
        drop = dense_right.astype(np.float64) - right
        values |= {"dense_top1": _mean(dense_right), "dense_top5": _mean(hits(dense, labels, 5))}
        values |= {"top1_drop": _mean(drop), "top1_drop_se": standard_error(drop)}
    return Accuracy(len(logits), by_order=by_order, **values)


def _mean(values: np.ndarray) -> float:
    return float(values.mean())
