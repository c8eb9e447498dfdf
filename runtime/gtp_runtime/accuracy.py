"""Accuracy on an image folder, beside the dense twin's."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Accuracy:
    """Shares of images in 0..1.

    Attributes:
        images: how many.
        top1, top5: of the file; None for images without classes.
        dense_top1, dense_top5: of the dense twin, likewise; None without one.
        agreement: same best class as the dense twin; None without one.
    """

    images: int
    top1: float | None
    top5: float | None
    dense_top1: float | None
    dense_top5: float | None
    agreement: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def measure(logits: np.ndarray, dense: np.ndarray | None, labels: np.ndarray | None) -> Accuracy:
    """Score (N, classes) logits of a file and of its dense twin against (N,) classes."""
    agreement = None if dense is None else float((logits.argmax(1) == dense.argmax(1)).mean())
    top1, top5 = _top(logits, labels, 1), _top(logits, labels, 5)
    return Accuracy(len(logits), top1, top5, _top(dense, labels, 1), _top(dense, labels, 5), agreement)


def _top(logits: np.ndarray | None, labels: np.ndarray | None, k: int) -> float | None:
    if logits is None or labels is None:
        return None
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(1).mean())
