"""Parity: compares the outputs of a file with those of eager PyTorch.

Token selection is discrete: with other arithmetic a near-tie may flip, which changes the logits far more than rounding
does. So the share of images whose kept sets agree has a limit, and the error limit applies only to those images. For
the others, the report shows how close the tie was. Limits on the result (the predicted class, or the direction of the
features) apply to all images. ``gtp_runtime.parity_gates`` has the limits.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gtp_runtime.errors import InputError
from gtp_runtime.kept_sets import KeptSets, LayerParity
from gtp_runtime.measures import cosine, divergence, hits
from gtp_runtime.parity_gates import failed_gates, limits_of

NO_TRACE = "kept sets were not compared: the file does not output the removed tokens (exported with --no-trace)"


@dataclass(frozen=True)
class Parity:
    """The comparison of a file's outputs with the reference.

    Attributes:
        images: number of images that were compared.
        precision: the precision whose error limit applies.
        top1_agreement: share of images with the same predicted class; None for features.
        kept_agreement: share of images with the same kept sets in every layer; None without a trace output, or if no
            tokens are removed.
        receiver_agreement: among the images whose kept sets agree, the share that merges every token into the same one;
            None for methods without a single receiver.
        kept_overlap: share of tokens that both remove in the same layer, corrected for chance, mean over the layers:
            1 if they are identical, 0 if the overlap is that of two random choices; None like ``kept_agreement``.
        min_kept: the limit of ``kept_agreement``; None where that is None.
        max_abs_fraction: largest error of a logit (or feature) over max|logit|, on images whose kept sets and receivers
            agree; None if none does.
        max_abs_fraction_all: the same on all images.
        cosine: smallest cosine similarity of an image's logits or features.
        kl: largest Kullback-Leibler divergence of an image's class probabilities, in nats; None for features.
        layers: one entry per layer that removes tokens.
        top1, dense_top1: accuracy in 0..1 on the reference images, of this file and of the dense model;
            None without labels.
        dense_cosine: mean cosine similarity to the dense model's features, which shows the effect of token reduction;
            None for logits.
        notes: messages on what could not be compared.
        problems: messages of the gates that failed.
    """

    images: int
    precision: str
    top1_agreement: float | None
    kept_agreement: float | None
    kept_overlap: float | None
    min_kept: float | None
    receiver_agreement: float | None
    max_abs_fraction: float | None
    max_abs_fraction_all: float
    cosine: float
    kl: float | None
    layers: list[LayerParity]
    top1: float | None
    dense_top1: float | None
    dense_cosine: float | None
    notes: list[str]
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether every gate held."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ``ok`` first; non-finite values become None, because JSON has none."""
        return {"ok": self.ok, **_finite(asdict(self))}


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
    min_kept: float | None = None,
) -> Parity:
    """Compare (N, classes) logits, or (N, dim) features.

    Args:
        answers, expected: the file's and the reference's.
        precision: "fp32", "fp16" or "bf16": the file's.
        labels: the images' classes (N,).
        dense: the dense model's, for its accuracy on the same images.
        kept: what tells which tokens are kept; None where no token leaves.
        classes: False for features, which have no best class and no probabilities.
        min_kept: the share of images, 0..1, whose kept sets must agree (default: by precision, see
            ``parity_gates.LIMITS``).

    Raises:
        InputError: nothing to compare, outputs of another shape than expected, a ``min_kept`` outside 0..1, an unknown
            precision.
        ManifestError: kept sets do not fit.
    """
    limits = limits_of(precision, min_kept)
    if answers.shape != expected.shape or answers.ndim != 2 or not answers.size:
        raise InputError(f"parity compares two equal (N, classes) arrays, not {answers.shape} with {expected.shape}")
    traced = kept is not None and kept.propagated is not None
    everyone = np.ones(len(answers), bool)
    agree, alike, layers = kept.agreement() if kept is not None and traced else (everyone, everyone, [])
    merges = any(layer.receivers is not None for layer in layers)
    errors = np.abs(answers - expected).max(1) / max(float(np.abs(expected).max()), 1e-30)
    parity = Parity(
        images=len(answers),
        precision=precision,
        top1_agreement=float((answers.argmax(1) == expected.argmax(1)).mean()) if classes else None,
        kept_agreement=float(agree.mean()) if layers else None,
        kept_overlap=float(np.mean([layer.overlap for layer in layers])) if layers else None,
        min_kept=limits.kept if layers else None,
        receiver_agreement=float(alike[agree].mean()) if merges and agree.any() else None,
        max_abs_fraction=float(errors[alike].max()) if alike.any() else None,
        max_abs_fraction_all=float(errors.max()),
        cosine=float(cosine(answers, expected).min()),
        kl=float(divergence(expected, answers).max()) if classes else None,
        layers=layers,
        top1=_top1(answers, labels),
        dense_top1=_top1(dense, labels),
        dense_cosine=None if classes or dense is None else float(cosine(answers, dense).mean()),
        notes=[NO_TRACE] if kept is not None and kept.reduces and not traced else [],
        problems=[],
    )
    finite, asked = bool(np.isfinite(answers).all()), min_kept is not None
    parity.problems.extend(failed_gates(parity, limits, finite=finite, kept_asked=asked))
    return parity


def _top1(logits: np.ndarray | None, labels: np.ndarray | None) -> float | None:
    if logits is None or labels is None:
        return None
    return float(hits(logits, labels).mean())


def _finite(value: Any) -> Any:
    """Plain values with None for what is not finite, which JSON cannot hold."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
