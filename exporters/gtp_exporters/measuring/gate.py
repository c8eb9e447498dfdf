"""The gate of a quantised file: how near it stays to its float32 twin on images that calibration never saw."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from gtp_exporters.errors import LimitError
from gtp_exporters.measuring.result import Loss
from gtp_runtime.accuracy import Tally, agree, as_classes, cosine, divergence, log_softmax, standard_error
from gtp_runtime.parity import KeptSets
from gtp_runtime.precisions import PRECISIONS, GateLimits
from gtp_runtime.question import LOGITS, Question, score

CLASSES = Question()  # logits, by softmax
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
        origin: where the images are from.
        loss: what it loses beside its twin; of features, the distance is their relative error.
        flips: share of images with another best class though only a divergence above the limit can change it (see
            ``flip_divergence``); None for features. Near-ties, which any rounding flips, are left out.
        cosine: mean cosine similarity of logits or features.
        layers: one entry a layer that reduces; empty without a trace output.
        problems: the limits that were missed, in words.
    """

    file: str
    origin: str
    loss: Loss
    flips: float | None
    cosine: float
    layers: list[LayerOverlap] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every limit held."""
        return not self.problems

    @property
    def divergence(self) -> float | None:
        """Mean Kullback-Leibler divergence from the twin's class probabilities, in nats; None for features."""
        return None if self.flips is None else self.loss.distance

    @property
    def drop(self) -> float | None:
        """The twin's top-1 less the file's, in points; None without classes."""
        return None if self.loss.top1_drop is None else 100 * self.loss.top1_drop

    @property
    def drop_se(self) -> float | None:
        """Its standard error, paired."""
        return None if self.loss.top1_drop_se is None else 100 * self.loss.top1_drop_se

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ``ok`` first, as ``results.quantization`` of a manifest has them."""
        loss = self.loss
        return {
            "ok": self.ok,
            "file": self.file,
            "images": loss.images,
            "origin": self.origin,
            "agreement": loss.agreement,
            "flips": self.flips,
            "top1": loss.top1,
            "twin_top1": loss.dense_top1,
            "drop": self.drop,
            "drop_se": self.drop_se,
            "divergence": self.divergence,
            "divergence_se": None if self.flips is None else loss.distance_se,
            "cosine": self.cosine,
            "layers": [asdict(layer) for layer in self.layers],
            "problems": self.problems,
        }


@np.errstate(invalid="ignore", over="ignore")
def judge(
    file: str,
    outputs: Outputs,
    twin: Outputs,
    labels: np.ndarray | None,
    origin: str,
    num_prop: Sequence[int],
    tokens: int,
    limits: GateLimits,
    question: Question = CLASSES,
) -> GateReport:
    """Hold the outputs of a quantised file to limits, beside those of its twin on the same images.

    Args:
        file: its name.
        outputs, twin: by name, the answers first, whatever they are called; (N, left) "propagated" where traced.
        labels: (N,) classes where known.
        origin: of the images, in words.
        num_prop: how many tokens leave in each layer; none for a dense file.
        tokens: image tokens before the first layer.
        limits: what is allowed.
        question: what the answers are measured by: (N, classes) logits, (N, dim) features, or any other shape.
    """
    name = next(iter(twin))
    answers, exact, tally = outputs[name], twin[name], Tally()
    tally.add(score({name: answers}, {name: exact}, labels, question), len(answers))
    is_logits = question.kind == LOGITS
    report = GateReport(
        file,
        origin,
        Loss.of(tally.accuracy(question.metric)),
        flips=float(clear_flips(exact, answers, limits.divergence, question.activation).mean()) if is_logits else None,
        cosine=float(cosine(answers, exact).mean()),
        layers=_layers(outputs, twin, num_prop, tokens),
    )
    not_finite = [] if np.isfinite(answers).all() else ["some answers are not finite"]
    return replace(report, problems=[*not_finite, *missed(report, limits)])


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


def hopeless(outputs: Outputs, twin: Outputs, limits: GateLimits, question: Question = CLASSES) -> bool:
    """Whether the first images show that the gate will fail: the divergence is above its limit by far.

    Args:
        outputs, twin, limits, question: as for ``judge``.
    """
    name = next(iter(twin))
    if not np.isfinite(outputs[name]).all():
        return True
    if question.kind != LOGITS or len(outputs[name]) < 2:
        return False
    apart = divergence(twin[name], outputs[name], question.activation)
    return bool(apart.mean() - CERTAIN * (standard_error(apart) or 0) > limits.divergence)


def _layers(outputs: Outputs, twin: Outputs, num_prop: Sequence[int], tokens: int) -> list[LayerOverlap]:
    if "propagated" not in twin:
        return []
    expected = np.split(twin["propagated"], np.cumsum(num_prop)[:-1], 1)
    gaps = [np.zeros(len(twin["propagated"])) for _ in num_prop]
    layers = KeptSets(outputs["propagated"], expected, gaps, tokens).agreement()[2]
    return [LayerOverlap(layer.layer, layer.overlap, layer.agreement) for layer in layers]


def missed(report: GateReport, limits: GateLimits) -> list[str]:
    """Return the limits that a report misses, in words."""
    worst = min(report.layers, key=lambda layer: layer.overlap, default=None)
    gates: tuple[tuple[bool, Callable[[], str]], ...] = (
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
