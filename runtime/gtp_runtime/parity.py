"""Parity, honestly: does a file answer what eager PyTorch answered?

Choosing tokens is discrete, so under other arithmetic a near-tie may flip and move the logits by far more
than rounding does. So the report says where the kept sets agree; there it gates on a tight error, and
where they do not it shows how near the tie was and gates on what the task sees: classes, or, of a model that gives
features, their direction.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

ERROR_LIMITS = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 1e-1}  # fractions of max|logit|, where kept sets agree
COSINE_LIMIT = 0.999
KL_LIMIT = 0.01  # nats
TOP1_LIMIT = 0.99


@dataclass(frozen=True)
class LayerParity:
    """One layer that reduces: the share of images whose kept sets agree, and the score gaps of the others.

    Attributes:
        layer: from 0.
        agreement: share of images, 0..1.
        smallest_gap: the smallest gap at the boundary among all images.
        flipped_gap: the largest gap among images whose sets first differ here; None where none does.
    """

    layer: int
    agreement: float
    smallest_gap: float
    flipped_gap: float | None


@dataclass(frozen=True)
class Parity:
    """How a file's answers compare with the reference.

    Attributes:
        images: how many were compared.
        precision: whose error limit holds.
        top1_agreement: share of images with the same best class; None for features.
        kept_agreement: share of images with the same kept sets in every layer; None without a trace output.
        max_abs_fraction: largest error of a logit (or feature) over max|logit|, on images whose kept sets agree; None
            if none does.
        max_abs_fraction_all: the same on all images.
        cosine: smallest cosine similarity of an image's logits or features.
        kl: largest Kullback-Leibler divergence of an image's class probabilities, in nats; None for features.
        layers: one entry a layer that reduces.
        top1, dense_top1: accuracy in 0..1 on the reference images, of this file and of the dense model;
            None without labels.
        dense_cosine: mean cosine similarity to the dense model's features, which is what reducing tokens costs;
            None for logits.
        problems: the gates that failed, in words.
    """

    images: int
    precision: str
    top1_agreement: float | None
    kept_agreement: float | None
    max_abs_fraction: float | None
    max_abs_fraction_all: float
    cosine: float
    kl: float | None
    layers: list[LayerParity]
    top1: float | None
    dense_top1: float | None
    dense_cosine: float | None
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether every gate held."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ``ok`` first; None for what is not finite, which JSON cannot hold."""
        values = {"ok": self.ok, **asdict(self)}
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in values.items()
        }


@dataclass(frozen=True)
class KeptSets:
    """What tells which tokens are kept.

    Attributes:
        propagated: a file's trace output, (N, all that left) ids in the order in which they left; None without.
        expected: the reference's, one (N, P) array a layer.
        gaps: the reference's score gaps, one (N,) array a layer.
    """

    propagated: np.ndarray | None
    expected: Sequence[np.ndarray]
    gaps: Sequence[np.ndarray]

    def agreement(self) -> tuple[np.ndarray, list[LayerParity]]:
        """Return which images (N,) agree in every layer, and each layer that reduces.

        What has left so far tells what is kept: that is compared, as sets, after every layer.
        """
        assert self.propagated is not None
        so_far, layers, end = np.ones(len(self.propagated), bool), [], 0
        everything = np.concatenate(list(self.expected), 1)
        for layer, ids in enumerate(self.expected):
            end += ids.shape[1]
            if not ids.shape[1]:
                continue
            same = (np.sort(self.propagated[:, :end], 1) == np.sort(everything[:, :end], 1)).all(1)
            flipped = self.gaps[layer][so_far & ~same]
            largest = float(flipped.max()) if flipped.size else None
            layers.append(LayerParity(layer, float(same.mean()), float(self.gaps[layer].min()), largest))
            so_far &= same
        return so_far, layers


@np.errstate(invalid="ignore", over="ignore")  # answers that are not finite fail a gate, and need no warnings
def compare(
    answers: np.ndarray,
    expected: np.ndarray,
    precision: str = "fp32",
    labels: np.ndarray | None = None,
    dense: np.ndarray | None = None,
    kept: KeptSets | None = None,
    *,
    classes: bool = True,
) -> Parity:
    """Compare (N, classes) logits, or (N, dim) features.

    Args:
        answers, expected: the file's and the reference's.
        precision: "fp32", "fp16" or "bf16": the file's.
        labels: the images' classes (N,).
        dense: the dense model's, for its accuracy on the same images.
        kept: what tells which tokens are kept; None where no token leaves.
        classes: False for features, which have no best class and no probabilities.
    """
    traced = kept is not None and kept.propagated is not None
    agree, layers = kept.agreement() if kept is not None and traced else (np.ones(len(answers), bool), [])
    errors = np.abs(answers - expected).max(1) / max(float(np.abs(expected).max()), 1e-30)
    parity = Parity(
        images=len(answers),
        precision=precision,
        top1_agreement=float((answers.argmax(1) == expected.argmax(1)).mean()) if classes else None,
        kept_agreement=float(agree.mean()) if traced else None,
        max_abs_fraction=float(errors[agree].max()) if agree.any() else None,
        max_abs_fraction_all=float(errors.max()),
        cosine=float(_cosine(answers, expected).min()),
        kl=float(_kl(expected, answers).max()) if classes else None,
        layers=layers,
        top1=_top1(answers, labels),
        dense_top1=_top1(dense, labels),
        dense_cosine=None if classes or dense is None else float(_cosine(answers, dense).mean()),
        problems=[],
    )
    parity.problems.extend(_gate(parity, bool(np.isfinite(answers).all())))
    return parity


def _cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(1) / np.maximum(norms, 1e-30))


def _kl(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    left, right = log_softmax(expected), log_softmax(actual)
    return np.asarray((np.exp(left) * (left - right)).sum(1))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the class probabilities, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _top1(logits: np.ndarray | None, labels: np.ndarray | None) -> float | None:
    if logits is None or labels is None:
        return None
    return float((logits.argmax(1) == labels).mean())


def _gate(parity: Parity, finite: bool) -> list[str]:
    problems, what = [], "feature" if parity.kl is None else "logit"
    limit = ERROR_LIMITS[parity.precision]
    if not finite:
        problems.append(f"some {what}s are not finite")
    if parity.max_abs_fraction is not None and not parity.max_abs_fraction <= limit:
        problems.append(
            f"{what} error {parity.max_abs_fraction:.2g} of max|{what}| where kept sets agree, limit {limit:g}"
        )
    if not parity.cosine >= COSINE_LIMIT:
        problems.append(f"cosine {parity.cosine:.5f}, limit {COSINE_LIMIT}")
    if parity.kl is not None and not parity.kl <= KL_LIMIT:
        problems.append(f"KL divergence {parity.kl:.3g} nats, limit {KL_LIMIT}")
    if parity.top1_agreement is not None and not parity.top1_agreement >= TOP1_LIMIT:
        problems.append(f"top-1 agreement {parity.top1_agreement:.1%}, limit {TOP1_LIMIT:.0%}")
    return problems
