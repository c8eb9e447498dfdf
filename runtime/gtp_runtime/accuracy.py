"""Accuracy on an image folder, compared with the dense baseline: scores image by image, and their sums.

The differences between two outputs of an image (``divergence``, ``agree``, …) serve parity as well.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

Scores = dict[str, np.ndarray]  # (N,) by name; a name is there where it is known
NAMED = 100  # images that cannot be read whose names are kept


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a file and of its dense baseline on the same images; shares are in 0..1.

    Standard errors (``_se``) are those of the mean over the images, None for a single image.

    Attributes:
        images: number of images that were measured.
        top1, top5: share of images whose class is predicted first, or among the first five; None without classes.
        top1_se: standard error of ``top1``.
        dense_top1, dense_top5: the same for the dense baseline; None without one, or without classes.
        top1_drop: ``dense_top1 - top1``.
        top1_drop_se: standard error of ``top1_drop``, paired: of the differences image by image.
        agreement: share of images with the same predicted class as the dense baseline; None without one.
        divergence: mean Kullback-Leibler divergence of the dense to the file's class probabilities, in nats.
        divergence_se: standard error of ``divergence``.
        class_order: what said the classes of sub-folders: "names", "numbers", "timm" or "torchvision"; else None.
        class_folders: class of each sub-folder, where its name alone does not say it; else None.
        unreadable: number of further images, which cannot be read.
        unreadable_images: the first ``NAMED`` of them, each with the reason.
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
    class_order: str | None = None
    class_folders: dict[str, int] | None = None
    unreadable: int = 0
    unreadable_images: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def score(
    logits: np.ndarray, dense: np.ndarray | None, classes: np.ndarray | None, activation: str = "softmax"
) -> Scores:
    """Score (N, classes) logits of a file, N > 0, and of its dense baseline against (N,) classes, image by image.

    ``activation`` is the model's: with "sigmoid", agreement is of all classes above 0.5.
    """
    scores: Scores = {}
    if classes is not None:
        scores |= {"top1": hits(logits, classes), "top5": hits(logits, classes, 5)}
    if dense is not None:
        scores |= {"agreement": agree(logits, dense, activation), "divergence": divergence(dense, logits, activation)}
    if dense is not None and classes is not None:
        scores |= {"dense_top1": hits(dense, classes), "dense_top5": hits(dense, classes, 5)}
        scores |= {"top1_drop": scores["dense_top1"].astype(np.float64) - scores["top1"]}
    return scores


@dataclass(frozen=True)
class Scored:
    """Scores of images that are next to each other.

    Attributes:
        stop: index after the last of them.
        indices: (N,) of those that were scored.
        scores: theirs, for each file.
        unreadable: the others' indices, and why each cannot be read.
    """

    stop: int
    indices: np.ndarray
    scores: list[Scores]
    unreadable: list[tuple[int, str]]


@dataclass
class Tally:
    """Sums of scores over any number of images, from which means and their standard errors follow.

    Attributes:
        images: how many were scored.
        sums, squares: of each score, and of its square.
        unreadable, unreadable_images: as in ``Accuracy``.
    """

    images: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)
    unreadable: int = 0
    unreadable_images: list[str] = field(default_factory=list)

    def add(self, scores: Scores, images: int) -> None:
        """Add the scores of so many images."""
        self.images += images
        for name, values in scores.items():
            exact = values.astype(np.float64)
            self.sums[name] = self.sums.get(name, 0.0) + float(exact.sum())
            self.squares[name] = self.squares.get(name, 0.0) + float((exact**2).sum())

    def merge(self, other: "Tally") -> None:
        """Add the sums over other images."""
        self.images += other.images
        for name, total in other.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + total
            self.squares[name] = self.squares.get(name, 0.0) + other.squares[name]
        self.unreadable += other.unreadable
        self.unreadable_images = [*self.unreadable_images, *other.unreadable_images][:NAMED]

    def add_unreadable(self, why: str) -> None:
        """Count an image that cannot be read."""
        self.unreadable += 1
        if len(self.unreadable_images) < NAMED:
            self.unreadable_images.append(why)

    def accuracy(self, class_order: str | None = None, class_folders: dict[str, int] | None = None) -> Accuracy:
        """Return the means over the images; at least one must have been scored. Arguments as of ``Accuracy``."""
        values: dict[str, Any] = {name: total / self.images for name, total in self.sums.items()}
        errors: dict[str, Any] = {
            f"{name}_se": self._error(name) for name in ("top1", "top1_drop", "divergence") if name in self.sums
        }
        lost: dict[str, Any] = {"unreadable": self.unreadable, "unreadable_images": self.unreadable_images}
        folders: dict[str, Any] = {"class_order": class_order, "class_folders": class_folders}
        return Accuracy(self.images, **folders, **values, **errors, **lost)

    def _error(self, name: str) -> float | None:
        """Standard error of the mean of a score; None for fewer than two images."""
        if self.images < 2:
            return None
        spread = self.squares[name] - self.sums[name] ** 2 / self.images
        return float(np.sqrt(max(0.0, spread) / (self.images - 1) / self.images))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the class probabilities (..., classes), in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def as_classes(logits: np.ndarray) -> np.ndarray:
    """Return (N, classes) logits; (N, 1) ones become two classes of the same probabilities: absent and present."""
    return logits if logits.shape[1] != 1 else np.concatenate([np.zeros_like(logits), logits], 1)


def probabilities(logits: np.ndarray, activation: str = "softmax") -> np.ndarray:
    """Return the probability of each class, (N, classes) float64, of (N, classes) logits; one logit is two classes.

    Args:
        logits: of the images.
        activation: "softmax" (one class an image), or "sigmoid" (each class by itself).
    """
    if activation == "sigmoid" and logits.shape[1] != 1:
        return np.asarray(np.exp(-np.logaddexp(0, -logits.astype(np.float64))))
    return np.asarray(np.exp(log_softmax(as_classes(logits))))


def divergence(expected: np.ndarray, actual: np.ndarray, activation: str = "softmax") -> np.ndarray:
    """Kullback-Leibler divergence of each image's class probabilities from the expected ones, (N,) float64 in nats.

    With "sigmoid" each class is a decision by itself, and their divergences add up.
    """
    if activation == "sigmoid" and expected.shape[1] != 1:
        wide, other = expected.astype(np.float64), actual.astype(np.float64)
        present, absent = -np.logaddexp(0, -wide), -np.logaddexp(0, wide)
        apart = np.exp(present) * (present + np.logaddexp(0, -other))
        return np.asarray((apart + np.exp(absent) * (absent + np.logaddexp(0, other))).sum(1))
    left, right = log_softmax(as_classes(expected)), log_softmax(as_classes(actual))
    return np.asarray((np.exp(left) * (left - right)).sum(1))


def agree(left: np.ndarray, right: np.ndarray, activation: str = "softmax") -> np.ndarray:
    """Whether each image's answer is the same, (N,) bool: the best class, or with "sigmoid" all classes above 0.5."""
    if activation == "sigmoid" or left.shape[1] == 1:
        return np.asarray(((left > 0) == (right > 0)).all(1))
    return np.asarray(left.argmax(1) == right.argmax(1))


def cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine similarity of each image's logits or features, (N,)."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(1) / np.maximum(norms, 1e-30))


def hits(logits: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """Whether each image's class is among its ``k`` best, (N,) bool."""
    best = np.argsort(-as_classes(logits), axis=1, kind="stable")[:, :k]
    return np.asarray((best == labels[:, None]).any(1))


def standard_error(values: np.ndarray) -> float | None:
    """Standard error of the mean of (N,) values; None for fewer than two."""
    if len(values) < 2:
        return None
    return float(np.std(values.astype(np.float64), ddof=1) / np.sqrt(len(values)))
