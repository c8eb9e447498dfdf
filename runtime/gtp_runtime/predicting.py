"""Predictions: what ``Model.predict`` returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np

from gtp_runtime.errors import AnswerError, InputError, RandomWeightsError
from gtp_runtime.manifest import Manifest
from gtp_runtime.measures import log_softmax


@dataclass(frozen=True)
class Prediction:
    """A predicted class; ``label`` is its name, or its index if names are unknown."""

    label: str
    index: int
    probability: float


def check_topk(topk: int) -> None:
    """Raise ``InputError`` unless ``topk`` is a whole number of 1 or more."""
    if isinstance(topk, bool) or not isinstance(topk, int | np.integer) or topk < 1:
        raise InputError(f"topk={topk!r}: give a whole number, 1 or more")


def check_weights(manifest: Manifest) -> None:
    """Raise ``RandomWeightsError`` if the weights are random."""
    if manifest.weights.source == "random":
        raise RandomWeightsError(
            f"{manifest.model.name} has random weights, so its predictions are meaningless: export it with "
            "--weights FILE, or allow them (allow_random=True, --allow-random)"
        )


def check_answers(answers: np.ndarray, images: Sequence[object], file: str) -> None:
    """Check (N, classes) answers for N images.

    Raises:
        AnswerError: some are not finite; names the first such image.
    """
    broken = ~np.isfinite(answers).all(1)
    if broken.any():
        first = images[int(broken.argmax())]
        name = first if isinstance(first, str | PathLike) else type(first).__name__
        raise AnswerError(
            f"{file} has non-finite outputs for {int(broken.sum())} of {len(answers)} images, first {name}: its "
            "weights contain NaN, or its precision overflows; run gtp-export validate, or export it again"
        )


def best_classes(logits: np.ndarray, labels: Sequence[str] | None, topk: int) -> list[list[Prediction]]:
    """Return the ``topk`` best classes of each image, best first, from finite (N, classes) logits."""
    return [_best(row, labels, topk) for row in log_softmax(logits)]


def _best(log_probabilities: np.ndarray, labels: Sequence[str] | None, topk: int) -> list[Prediction]:
    order = np.argsort(-log_probabilities, kind="stable")[:topk]
    return [
        Prediction(labels[index] if labels else str(index), int(index), float(np.exp(log_probabilities[index])))
        for index in order
    ]
