"""Accuracy on an image folder, compared with the dense baseline: what is measured, and its sums over images.

The differences between two outputs of an image (``divergence``, ``agree``, …) serve parity as well.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np

from gtp_runtime.errors import InputError

Scores = dict[str, np.ndarray]  # (N,) by name; a name is there where it is known
Outputs = Mapping[str, np.ndarray]  # (N, ...) float32 by name
Measure = Callable[[Outputs, Outputs, "np.ndarray | None"], Any]
NAMED = 100  # images that cannot be read whose names are kept
VALUE, DENSE_VALUE, DISTANCE = "value", "dense_value", "distance"  # scores of a metric
PARTS = (f"{VALUE} ", f"{DENSE_VALUE} ")  # before their numbers, where a metric is of all images together
DENSE = "dense "  # before the name of a measure: the dense baseline's
ERRORS = ("top1", "top1_drop", DISTANCE)  # scores whose standard errors are reported


@dataclass(frozen=True)
class Metric:
    """A number that says how a model answers, beside the dense model.

    Attributes:
        name, unit: in words; the unit is "" where it has none.
        measure: from the outputs of the dense model and of the reduced one for N images, and the images' truth (classes
            (N,), masks or depths (N, H, W), None where unknown) to (N,) numbers, or to one number for all N. It is a
            function of a module where other machines measure.
        higher_is_better: whether a larger number is the better one.
        is_distance: whether it is 0 for the dense model's own outputs, which is then not measured.
        combine: makes the number of all images of the means (K,) over them, where ``measure`` returns (N, K).
    """

    name: str
    unit: str
    measure: Measure
    higher_is_better: bool = False
    is_distance: bool = False
    combine: Callable[[np.ndarray], float] | None = None

    def scores(self, dense: Outputs, outputs: Outputs, truth: np.ndarray | None) -> Scores:
        """Score outputs of N images: the metric of both models, and how much worse the reduced one is."""
        count = len(next(iter(outputs.values())))
        value = self._numbers(dense, outputs, truth, count)
        if self.is_distance:
            return {DISTANCE: value}
        own = self._numbers(dense, dense, truth, count)
        if self.combine is not None:
            pairs = ((VALUE, value), (DENSE_VALUE, own))
            return {f"{name} {part}": column for name, values in pairs for part, column in enumerate(values.T)}
        return {VALUE: value, DENSE_VALUE: own, DISTANCE: self.worse(value, own)}

    def worse(self, value: Any, dense: Any) -> Any:
        """Return how much worse a value is than the dense model's, in the metric's unit; below 0 where it is better."""
        return dense - value if self.higher_is_better else value - dense

    def _numbers(self, dense: Outputs, outputs: Outputs, truth: np.ndarray | None, count: int) -> np.ndarray:
        values = np.asarray(self.measure(dense, outputs, truth), np.float64)
        values = np.full(count, values) if not values.ndim else values
        fits = len(values) == count and values.ndim == (1 if self.combine is None else 2)
        if not fits or (_is_finite(outputs) and not np.isfinite(values).all()):
            raise InputError(
                f"the metric {self.name} gives {values.shape} for {count} images, or numbers that are not finite: "
                "return one finite number, or one for each image"
            )
        return values


def _is_finite(outputs: Outputs) -> bool:
    """Whether all numbers are finite; what is measured of others is not either."""
    return all(bool(np.isfinite(values).all()) for values in outputs.values())


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
        quality: what ``top1`` is: "top-1", "zero-shot top-1" or, of features, "k-NN top-1"; "" without classes.
        metric, unit: what the distance is of, in words: "divergence", "nats".
        distance: how much worse the metric is than the dense baseline's; None without one.
        distance_se: standard error of ``distance``; None as well where the metric is of all images together.
        value, dense_value: the metric itself, where it is more than a distance; None otherwise.
        measures: further means, by name: "cosine", "recall@5", "dense recall@5".
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
    quality: str = ""
    metric: str = ""
    unit: str = ""
    distance: float | None = None
    distance_se: float | None = None
    value: float | None = None
    dense_value: float | None = None
    measures: dict[str, float] = field(default_factory=dict)
    class_order: str | None = None
    class_folders: dict[str, int] | None = None
    unreadable: int = 0
    unreadable_images: list[str] = field(default_factory=list)

    @property
    def divergence(self) -> float | None:
        """Mean Kullback-Leibler divergence of the dense to the file's class probabilities, in nats; else None."""
        return self.distance if self.metric == DIVERGENCE.name else None

    @property
    def divergence_se(self) -> float | None:
        """Its standard error."""
        return self.distance_se if self.metric == DIVERGENCE.name else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"divergence": self.divergence, "divergence_se": self.divergence_se}


FIELDS = frozenset(entry.name for entry in fields(Accuracy))


def metric_lines(accuracy: Accuracy) -> list[str]:
    """Return what was measured without classes, in a line each: the metric, and the measures beside it."""
    lines = []
    error = "" if accuracy.distance_se is None else f" ± {accuracy.distance_se:.2g}"
    if accuracy.value is not None:
        dense = "" if accuracy.dense_value is None else f", dense {accuracy.dense_value:.4g}"
        worse = "" if accuracy.distance is None else f": {accuracy.distance:.3g}{error} worse"
        lines.append(f"{accuracy.metric} {accuracy.value:.4g} {accuracy.unit}".rstrip() + dense + worse)
    elif accuracy.distance is not None and accuracy.metric != DIVERGENCE.name:
        lines.append(f"{accuracy.metric} {accuracy.distance:.4g}{error} {accuracy.unit}".rstrip())
    own = {name: value for name, value in accuracy.measures.items() if not name.startswith(DENSE)}
    twins = {name: accuracy.measures[DENSE + name] for name in own if DENSE + name in accuracy.measures}
    words = [
        f"{name} {value:.4f}" + (f" (dense {twins[name]:.4f})" if name in twins else "") for name, value in own.items()
    ]
    return [*lines, *([", ".join(words)] if words else [])]


def class_scores(
    logits: np.ndarray, dense: np.ndarray | None, classes: np.ndarray | None, activation: str = "softmax"
) -> Scores:
    """Score (N, classes) logits of a file, N > 0, and of its dense baseline against (N,) classes, image by image.

    ``activation`` is the model's: with "sigmoid", agreement is of all classes above 0.5.
    """
    scores: Scores = {}
    if classes is not None:
        scores |= {"top1": hits(logits, classes), "top5": hits(logits, classes, 5)}
    if dense is not None:
        scores["agreement"] = agree(logits, dense, activation)
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

    def accuracy(
        self,
        metric: Metric | None = None,
        quality: str = "top-1",
        class_order: str | None = None,
        class_folders: dict[str, int] | None = None,
    ) -> Accuracy:
        """Return the means over the images; at least one must have been scored.

        Args:
            metric: what was measured (default: the divergence).
            quality, class_order, class_folders: as of ``Accuracy``.
        """
        metric = metric or DIVERGENCE
        means = {name: total / self.images for name, total in self.sums.items()} | self._combined(metric)
        if not metric.higher_is_better and not means.get(DENSE_VALUE, 1.0):
            means = {name: mean for name, mean in means.items() if name not in (VALUE, DENSE_VALUE)}  # a distance
        values: dict[str, Any] = {name: mean for name, mean in means.items() if name in FIELDS}
        values["measures"] = {
            name: mean for name, mean in means.items() if name not in FIELDS and not name.startswith(PARTS)
        }
        values |= {f"{name}_se": self._error(name) for name in ERRORS if name in self.sums}
        if DISTANCE in means or VALUE in means:
            values |= {"metric": metric.name, "unit": metric.unit}
        lost: dict[str, Any] = {"unreadable": self.unreadable, "unreadable_images": self.unreadable_images}
        folders: dict[str, Any] = {"class_order": class_order, "class_folders": class_folders}
        folders["quality"] = quality if "top1" in means else ""
        return Accuracy(self.images, **folders, **values, **lost)

    def _combined(self, metric: Metric) -> dict[str, float]:
        """Return the values of a metric that is of all images together, and its distance."""
        if metric.combine is None or f"{VALUE} 0" not in self.sums:
            return {}
        value = metric.combine(self._parts(VALUE))
        if f"{DENSE_VALUE} 0" not in self.sums:
            return {VALUE: value}
        dense = metric.combine(self._parts(DENSE_VALUE))
        return {VALUE: value, DENSE_VALUE: dense, DISTANCE: metric.worse(value, dense)}

    def _parts(self, name: str) -> np.ndarray:
        count = sum(part.startswith(f"{name} ") for part in self.sums)
        return np.array([self.sums[f"{name} {part}"] / self.images for part in range(count)])

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


def _divergence(dense: Outputs, outputs: Outputs, truth: np.ndarray | None, activation: str) -> np.ndarray:  # noqa: ARG001
    (expected, *_), (actual, *_) = dense.values(), outputs.values()
    return divergence(expected, actual, activation)


DIVERGENCE = Metric("divergence", "nats", partial(_divergence, activation="softmax"), is_distance=True)
BY_CLASS = Metric("divergence", "nats", partial(_divergence, activation="sigmoid"), is_distance=True)


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
