"""The gate of a quantised file: how near it stays to its float32 twin on images that calibration never saw."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from gtp_exporters.errors import LimitError
from gtp_runtime.accuracy import agree, as_classes, cosine, divergence, hits, log_softmax, standard_error
from gtp_runtime.parity import KeptSets
from gtp_runtime.precisions import PRECISIONS, GateLimits

CERTAIN = 3.0  # standard errors above its limit at which a divergence ends the judging
Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class LayerOverlap:
    """A layer that reduces: share of the tokens that leave in both, corrected for chance (1: the same, 0: chance),
    and share of images whose kept sets agree.
    """

    layer: int
    overlap: float
    agreement: float


@dataclass(frozen=True)
class GateReport:
    """How a quantised file compares with its float32 twin.

    Attributes:
        file: its name.
        images, origin: how many images it was judged on, and where they are from.
        agreement: share of images with the twin's best class; None for features.
        flips: share of images with another best class though only a divergence above the limit can change it (see
            ``flip_divergence``); None for features. Near-ties, which any rounding flips, are left out.
        top1, twin_top1: accuracy of both; None without classes.
        drop, drop_se: ``twin_top1 - top1`` in points and its standard error, paired; None without classes.
        divergence: mean Kullback-Leibler divergence from the twin's class probabilities, in nats; None for features.
        divergence_se: its standard error.
        cosine: mean cosine similarity of logits or features.
        layers: one entry a layer that reduces; empty without a trace output.
        problems: the limits that were missed, in words.
    """

    file: str
    images: int
    origin: str
    agreement: float | None
    flips: float | None
    top1: float | None
    twin_top1: float | None
    drop: float | None
    drop_se: float | None
    divergence: float | None
    divergence_se: float | None
    cosine: float
    layers: list[LayerOverlap]
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every limit held."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ``ok`` first."""
        return {"ok": self.ok, **asdict(self)}


@np.errstate(invalid="ignore", over="ignore")
def judge(
    file: str,
    found: Outputs,
    twin: Outputs,
    labels: np.ndarray | None,
    origin: str,
    num_prop: Sequence[int],
    tokens: int,
    limits: GateLimits,
    activation: str = "softmax",
) -> GateReport:
    """Compare the outputs of a quantised file with those of its twin on the same images.

    Args:
        file: its name.
        found, twin: outputs by name: (N, classes) "logits" or (N, dim) "features" first, (N, left) "propagated" where
            traced.
        labels: (N,) classes where known.
        origin: of the images, in words.
        num_prop: how many tokens leave in each layer; none for a dense file.
        tokens: image tokens before the first layer.
        limits: what is allowed.
        activation: what makes probabilities of logits: "softmax" or "sigmoid".
    """
    name = next(iter(twin))
    classes = name == "logits"
    answers, expected = found[name], twin[name]
    apart = divergence(expected, answers, activation) if classes else None
    drop = None if labels is None or not classes else 100 * (hits(expected, labels) - 1.0 * hits(answers, labels))
    report = GateReport(
        file=file,
        images=len(answers),
        origin=origin,
        agreement=float(agree(answers, expected, activation).mean()) if classes else None,
        flips=float(clear_flips(expected, answers, limits.divergence, activation).mean()) if classes else None,
        top1=None if drop is None or labels is None else float(hits(answers, labels).mean()),
        twin_top1=None if drop is None or labels is None else float(hits(expected, labels).mean()),
        drop=None if drop is None else float(drop.mean()),
        drop_se=None if drop is None else standard_error(drop),
        divergence=None if apart is None else float(apart.mean()),
        divergence_se=None if apart is None else standard_error(apart),
        cosine=float(cosine(answers, expected).mean()),
        layers=_layers(found, twin, num_prop, tokens),
    )
    report.problems.extend(_missed(report, limits, finite=bool(np.isfinite(answers).all())))
    return report


def clear_flips(expected: np.ndarray, answers: np.ndarray, least: float, activation: str = "softmax") -> np.ndarray:
    """Return whether each image's answer changed though only a divergence above ``least`` can change it, (N,) bool.

    Args:
        expected, answers: (N, classes) logits.
        least: in nats.
        activation: "softmax", or "sigmoid": each class is a decision by itself.
    """
    if activation == "sigmoid" and expected.shape[1] != 1:
        changed, pairs = (expected > 0) != (answers > 0), expected.reshape(-1, 1)
        return np.asarray((changed & (flip_divergence(pairs).reshape(changed.shape) > least)).any(1))
    return ~agree(answers, expected, activation) & (flip_divergence(expected) > least)


def flip_divergence(logits: np.ndarray) -> np.ndarray:
    """Return the smallest divergence, in nats, that makes the second best class as likely as the best, (N,).

    Of all distributions in which the two, p and q, are equally likely, the nearest gives each their mean m and keeps
    the others: its divergence is p log(p/m) + q log(q/m).

    Args:
        logits: (N, classes), or (N, 1) of two classes.
    """
    logs = np.sort(log_softmax(as_classes(logits)), axis=1)[:, -2:]
    second, first = logs.T
    share = np.exp(first) + np.exp(second)
    both = np.exp(first) * (first - np.log(share / 2)) + np.exp(second) * (second - np.log(share / 2))
    return np.asarray(both)


def hopeless(found: Outputs, twin: Outputs, limits: GateLimits, activation: str = "softmax") -> bool:
    """Whether the first images show that the gate will fail: the divergence is above its limit by far.

    Args:
        found, twin, limits, activation: as for ``judge``.
    """
    name = next(iter(twin))
    if not np.isfinite(found[name]).all():
        return True
    if name != "logits" or len(found[name]) < 2:
        return False
    apart = divergence(twin[name], found[name], activation)
    return bool(apart.mean() - CERTAIN * (standard_error(apart) or 0) > limits.divergence)


def _layers(found: Outputs, twin: Outputs, num_prop: Sequence[int], tokens: int) -> list[LayerOverlap]:
    if "propagated" not in twin:
        return []
    expected = np.split(twin["propagated"], np.cumsum(num_prop)[:-1], 1)
    gaps = [np.zeros(len(twin["propagated"])) for _ in num_prop]
    layers = KeptSets(found["propagated"], expected, gaps, tokens).agreement()[2]
    return [LayerOverlap(layer.layer, layer.overlap, layer.agreement) for layer in layers]


def _missed(report: GateReport, limits: GateLimits, *, finite: bool) -> list[str]:
    worst = min(report.layers, key=lambda layer: layer.overlap, default=None)
    gates: tuple[tuple[bool, Callable[[], str]], ...] = (
        (finite, lambda: "some answers are not finite"),
        (
            report.flips is None or report.flips <= 1 - limits.agreement,
            lambda: f"top-1 agreement {1 - (report.flips or 0):.1%} without near-ties, limit {limits.agreement:.1%}",
        ),
        (
            report.drop is None or report.drop <= limits.drop,
            lambda: f"top-1 is {report.drop:.2f} points below fp32, limit {limits.drop:g} (--max-drop)",
        ),
        (
            report.divergence is None or report.divergence <= limits.divergence,
            lambda: f"divergence {report.divergence:.3g} nats (mean), limit {limits.divergence:g}",
        ),
        (report.cosine >= limits.cosine, lambda: f"cosine {report.cosine:.4f} (mean), limit {limits.cosine:g}"),
        (
            worst is None or worst.overlap >= limits.overlap,
            lambda: (
                f"other tokens leave in layer {worst and worst.layer}: overlap {worst and worst.overlap:.2f} "
                f"(0 is chance), limit {limits.overlap:g}"
            ),
        ),
    )
    return [text() for held, text in gates if not held]


def limits_of(precision: str, max_drop: float | None) -> GateLimits:
    """Return the limits of a precision; ``max_drop`` (points) replaces that of top-1.

    Raises:
        LimitError: a ``max_drop`` below 0.
    """
    limits = PRECISIONS[precision].gate
    assert limits is not None
    if max_drop is None:
        return limits
    if not max_drop >= 0:
        raise LimitError(f"max_drop={max_drop}: give points, 0 or more")
    return replace(limits, drop=max_drop)
