"""Parity: compares the outputs of a file with those of eager PyTorch.

Token selection is discrete: with other arithmetic a near-tie may flip, which changes the logits far more than rounding
does. So the share of images whose kept sets agree has a limit, and the error limit applies only to those images. For
the others, the report shows how close the tie was. Limits on the result (the predicted class, or the direction of the
features) apply to all images. ``gtp_runtime.precisions`` has the limits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import ge, le
from typing import Any

import numpy as np

from gtp_runtime.accuracy import agree, cosine, divergence, hits
from gtp_runtime.cpus import ADDING_IN_16_BITS, saturates_int8
from gtp_runtime.errors import InputError, ManifestError
from gtp_runtime.manifest.schema import QuantizationInfo
from gtp_runtime.messages import number, percent
from gtp_runtime.precisions import PRECISIONS, ParityLimits

NO_TRACE = "kept sets were not compared: the file does not output the removed tokens (exported with --no-trace)"
SATURATES = (
    "this x86 CPU has no VNNI: it adds products of int8 in 16 bits, and the sums may saturate; gtp-export quantize "
    "--weight-bits 7 makes a file whose sums cannot"
)


def limits_of(precision: str, min_kept: float | None = None) -> ParityLimits:
    """Return the limits of a precision; ``min_kept`` replaces that of the kept sets.

    Raises:
        InputError: an unknown precision, a ``min_kept`` that is no number in 0..1.
    """
    if precision not in PRECISIONS:
        raise InputError(f"no parity limits for precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if min_kept is None:
        return PRECISIONS[precision].parity
    if isinstance(min_kept, bool) or not isinstance(min_kept, int | float) or not 0 <= min_kept <= 1:
        raise InputError(f"min_kept={min_kept!r}: give a share of the images, 0 to 1")
    return replace(PRECISIONS[precision].parity, kept=float(min_kept))


@dataclass(frozen=True)
class LayerParity:
    """One layer that removes tokens: the share of images whose kept sets agree, and the score gaps of the others.

    Attributes:
        layer: index of the layer, from 0.
        agreement: share of images, 0..1, whose kept sets agree after this layer.
        receivers: of the images whose kept sets agree up to this layer, the share that merges every token into the
            same one; None if tokens have no single receiver, or if no image agrees.
        overlap: mean share of tokens that both remove in this layer, corrected for chance: 1 if they are identical,
            0 if the overlap is that of two random choices.
        smallest_gap: the smallest score gap among all images.
        flipped_gap: the largest score gap among images whose kept sets first differ here; None if there are none.
    """

    layer: int
    agreement: float
    overlap: float
    smallest_gap: float
    flipped_gap: float | None
    receivers: float | None = None


@dataclass(frozen=True)
class KeptSets:
    """What tells which tokens are kept.

    Attributes:
        propagated: a file's trace output, (N, all that left) ids in the order in which they left; None where the file
            has none (exported with --no-trace).
        expected: the reference's, one (N, P) array a layer.
        gaps: the reference's score gaps, one (N,) array a layer.
        tokens: image tokens before the first layer.
        received_by: a file's second trace output, for each of ``propagated`` the token that it was merged into; None
            where there is none.
        expected_receivers: the reference's, one array a layer.

    Raises:
        ManifestError: arrays that do not fit each other.
    """

    propagated: np.ndarray | None
    expected: Sequence[np.ndarray]
    gaps: Sequence[np.ndarray]
    tokens: int
    received_by: np.ndarray | None = None
    expected_receivers: Sequence[np.ndarray] | None = None

    def __post_init__(self) -> None:
        if self.propagated is None:
            return
        if self.received_by is not None and self.received_by.shape != self.propagated.shape:
            raise ManifestError(
                f"the file outputs {self.propagated.shape} removed tokens but {self.received_by.shape} receivers: "
                "export it again"
            )
        given, expected = self.propagated.shape, [ids.shape for ids in self.expected]
        if given[1:] != (sum(shape[1] for shape in expected),) or any(shape[0] != given[0] for shape in expected):
            raise ManifestError(
                f"the file outputs {given} removed tokens, but the reference has {expected}: export both again"
            )

    @property
    def reduces(self) -> bool:
        """Whether any token leaves, so that there are kept sets to compare."""
        return any(ids.shape[1] for ids in self.expected)

    def agreement(self) -> tuple[np.ndarray, np.ndarray, list[LayerParity]]:
        """Return which images (N,) agree in every layer on the kept sets, which of them on every receiver too, and each
        layer that reduces; ``propagated`` is needed.

        The tokens that left so far tell which are kept: they are compared, as sets, after every layer.
        """
        assert self.propagated is not None
        agree, layers, start = np.ones(len(self.propagated), bool), [], 0
        merged = agree.copy()
        everything = np.concatenate(list(self.expected), 1)
        for layer, ids in enumerate(self.expected):
            end = start + ids.shape[1]
            if end == start:
                continue
            same = (np.sort(self.propagated[:, :end], 1) == np.sort(everything[:, :end], 1)).all(1)
            flipped = self.gaps[layer][agree & ~same]
            largest = float(flipped.max()) if flipped.size else None
            overlap = _overlap(self.propagated[:, start:end], ids, self.tokens - start)
            agree &= same
            alike = self._same_receivers(layer, start, end)
            merged &= agree & alike
            receivers = float(alike[agree].mean()) if self._names_receivers and agree.any() else None
            gap = float(self.gaps[layer].min())
            layers.append(LayerParity(layer, float(same.mean()), overlap, gap, largest, receivers))
            start = end
        return agree, merged, layers

    @property
    def _names_receivers(self) -> bool:
        return self.received_by is not None and self.expected_receivers is not None

    def _same_receivers(self, layer: int, start: int, end: int) -> np.ndarray:
        """Return for which images (N,) every token that left is merged into the same one; all, where none is named."""
        assert self.propagated is not None
        if self.received_by is None or self.expected_receivers is None:
            return np.ones(len(self.propagated), bool)
        receivers = _by_id(self.propagated[:, start:end], self.received_by[:, start:end])
        return np.asarray((receivers == _by_id(self.expected[layer], self.expected_receivers[layer])).all(1))


def _by_id(left: np.ndarray, receivers: np.ndarray) -> np.ndarray:
    """Return receivers in the order of the ids of the tokens that left."""
    return np.take_along_axis(receivers, np.argsort(left, axis=1, kind="stable"), 1)


def _overlap(found: np.ndarray, expected: np.ndarray, tokens: int) -> float:
    """Mean share of two (N, P) choices among ``tokens`` that is the same, corrected for chance."""
    share = float((found[:, :, None] == expected[:, None, :]).any(1).mean())
    chance = min(expected.shape[1] / tokens, 0.99) if tokens > 0 else 0.0
    return (share - chance) / (1 - chance)


@dataclass(frozen=True)
class OutputParity:
    """One output of several: as the attributes of ``Parity`` of the same names."""

    max_abs_fraction: float | None
    max_abs_fraction_all: float
    cosine: float
    dense_cosine: float | None


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
            None for logits; of several outputs the first's.
        outputs: each of several outputs by name; the values above are then the worst of them. Empty for a single one.
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
    outputs: dict[str, OutputParity]
    notes: list[str]
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether every gate held."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ``ok`` first; non-finite values become None, because JSON has none."""
        return {"ok": self.ok, **_finite(asdict(self))}


Outputs = np.ndarray | Mapping[str, np.ndarray]


@np.errstate(invalid="ignore", over="ignore")  # answers that are not finite fail a gate, and need no warnings
def compare(
    answers: Outputs,
    expected: Outputs,
    precision: str = "fp32",
    labels: np.ndarray | None = None,
    dense: Outputs | None = None,
    kept: KeptSets | None = None,
    *,
    classes: bool = True,
    min_kept: float | None = None,
    activation: str = "softmax",
) -> Parity:
    """Compare (N, classes) logits, (N, dim) features, or outputs of any shape (N, ...).

    Args:
        answers, expected: the file's and the reference's; several outputs by name, each of which has to pass.
        precision: the file's, a name of ``PRECISIONS``.
        labels: the images' classes (N,).
        dense: the dense model's, for its accuracy on the same images.
        kept: what tells which tokens are kept; None where no token leaves.
        classes: False for features, which have no best class and no probabilities.
        min_kept: the share of images, 0..1, whose kept sets must agree (default: by precision, see
            ``precisions.PRECISIONS``).
        activation: what makes probabilities of logits: "softmax", or "sigmoid" for each class by itself.

    Raises:
        InputError: nothing to compare, outputs of another shape than expected, a ``min_kept`` outside 0..1, an unknown
            precision.
        ManifestError: kept sets do not fit.
    """
    limits = limits_of(precision, min_kept)
    ours, theirs, twins = (_by_name(outputs) for outputs in (answers, expected, {} if dense is None else dense))
    for name, values in ours.items():
        _check_comparable(values, theirs.get(name), classes)
    first = next(iter(ours))
    images = len(ours[first])
    traced = kept is not None and kept.propagated is not None
    everyone = np.ones(images, bool)
    same, alike, layers = kept.agreement() if kept is not None and traced else (everyone, everyone, [])
    merges = any(layer.receivers is not None for layer in layers)
    each = {name: _output_parity(ours[name], theirs[name], twins.get(name), alike) for name in ours}
    on_alike = [output.max_abs_fraction for output in each.values() if output.max_abs_fraction is not None]
    parity = Parity(
        images=images,
        precision=precision,
        top1_agreement=float(agree(ours[first], theirs[first], activation).mean()) if classes else None,
        kept_agreement=float(same.mean()) if layers else None,
        kept_overlap=float(np.mean([layer.overlap for layer in layers])) if layers else None,
        min_kept=limits.kept if layers else None,
        receiver_agreement=float(alike[same].mean()) if merges and same.any() else None,
        max_abs_fraction=float(np.max(on_alike)) if on_alike else None,
        max_abs_fraction_all=float(np.max([output.max_abs_fraction_all for output in each.values()])),
        cosine=float(np.min([output.cosine for output in each.values()])),
        kl=float(divergence(theirs[first], ours[first], activation).max()) if classes else None,
        layers=layers,
        top1=_top1(ours[first], labels) if classes else None,
        dense_top1=_top1(twins.get(first), labels) if classes else None,
        dense_cosine=None if classes else each[first].dense_cosine,
        outputs=each if len(each) > 1 else {},
        notes=[NO_TRACE] if kept is not None and kept.reduces and not traced else [],
        problems=[],
    )
    finite, asked = all(np.isfinite(values).all() for values in ours.values()), min_kept is not None
    parity.problems.extend(failed_gates(parity, limits, finite=finite, kept_asked=asked))
    return parity


def cautions(quantized: QuantizationInfo | None, backend: str, info: Mapping[str, Any]) -> list[str]:
    """Return what to know of the answers of a file on this CPU: int8 products may saturate.

    Args:
        quantized: how it was quantised; None where it was not.
        backend: name of the backend that runs it.
        info: what the backend says of itself: a provider or a device that is no CPU has other kernels.
    """
    is_full = quantized is not None and quantized.weight_bits == 8
    on_cpu = backend in ADDING_IN_16_BITS and "CPU" in str(info.get("provider", info.get("device", ""))).upper()
    return [SATURATES] if is_full and on_cpu and saturates_int8() else []


def _by_name(outputs: Outputs) -> Mapping[str, np.ndarray]:
    return {"": outputs} if isinstance(outputs, np.ndarray) else outputs


def _check_comparable(answers: np.ndarray, expected: np.ndarray | None, classes: bool) -> None:
    axes = "(N, classes)" if classes else "(N, ...)"
    shape = None if expected is None else expected.shape
    if answers.shape != shape or answers.ndim < 1 + classes or not answers.size:
        raise InputError(f"parity compares two equal {axes} arrays, not {answers.shape} with {shape}")


def _output_parity(
    answers: np.ndarray, expected: np.ndarray, dense: np.ndarray | None, alike: np.ndarray
) -> OutputParity:
    """Compare (N, ...) outputs; ``alike`` (N,) says for which images the same tokens were kept."""
    answers, expected = _rows(answers), _rows(expected)
    errors = np.abs(answers - expected).max(1) / max(float(np.abs(expected).max()), 1e-30)
    return OutputParity(
        max_abs_fraction=float(errors[alike].max()) if alike.any() else None,
        max_abs_fraction_all=float(errors.max()),
        cosine=float(cosine(answers, expected).min()),
        dense_cosine=None if dense is None else float(cosine(answers, _rows(dense)).mean()),
    )


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)


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


def failed_gates(parity: Parity, limits: ParityLimits, *, finite: bool, kept_asked: bool) -> list[str]:
    """Return a message for each gate that fails.

    Args:
        parity: the measured values.
        limits: the limits.
        finite: whether every output is finite.
        kept_asked: whether the user gave the limit of the kept sets, which must then apply.
    """
    what = "feature" if parity.kl is None else "logit"
    gates: tuple[tuple[float | None, Callable[[float, float], bool], float, str], ...] = (
        (parity.kept_agreement, ge, limits.kept, "kept sets agree on {:.1%} of the images, limit {:.0%}"),
        (
            parity.receiver_agreement,
            ge,
            limits.kept,
            "receivers agree on {:.1%} of the images whose kept sets do, limit {:.0%}",
        ),
        (
            parity.kept_overlap,
            ge,
            limits.overlap,
            "different tokens are removed: overlap {:.2g} (0 is chance), limit {:g}",
        ),
        (
            parity.max_abs_fraction,
            le,
            limits.error,
            f"{what} error {{:.2g}} of max|{what}| where kept sets agree, limit {{:g}}",
        ),
        (parity.cosine, ge, limits.cosine, "cosine {:.5f}, limit {}"),
        (parity.kl, le, limits.kl, "KL divergence {:.3g} nats, limit {}"),
        (parity.top1_agreement, ge, limits.top1, "top-1 agreement {:.1%}, limit {:.0%}"),
    )
    problems = [] if finite else [f"some {what}s are not finite"]
    if kept_asked and parity.kept_agreement is None:
        problems.append("no kept sets to compare, so omit min_kept (--min-kept)")
    measured = ((value, holds, limit, text) for value, holds, limit, text in gates if value is not None)
    return problems + [text.format(value, limit) for value, holds, limit, text in measured if not holds(value, limit)]


def headline(parity: Parity, images: str) -> str:
    """Return what was found in one line; ``images`` says where the images come from."""
    what = "feature" if parity.top1_agreement is None else "logit"
    parts = [
        None if parity.top1_agreement is None else f"top-1 agrees on {percent(parity.top1_agreement)}",
        None if parity.kept_agreement is None else f"kept sets agree on {percent(parity.kept_agreement)}",
        None if parity.receiver_agreement is None else f"receivers on {percent(parity.receiver_agreement)} of these",
        None if parity.kept_overlap in (None, 1) else f"token overlap {number(parity.kept_overlap, 3)}",
        f"{what} error {parity.max_abs_fraction_all:.1e} of max|{what}|",
        f"cosine {parity.cosine:.6f}",
    ]
    verdict = "ok" if parity.ok else "FAILED"
    return f"parity {verdict} on {parity.images} images ({images}): {', '.join(part for part in parts if part)}"


def details(parity: Parity) -> Iterator[str]:
    """Yield lines with what is to be said besides: near-ties, accuracy, notes; not the failed gates."""
    for layer in parity.layers:
        if layer.flipped_gap is not None:
            yield (
                f"  layer {layer.layer}: kept sets agree on {percent(layer.agreement)}; "
                f"those that flip were within {layer.flipped_gap:.1e} of a tie"
            )
    if parity.top1 is not None:
        dense = "" if parity.dense_top1 is None else f" (dense {percent(parity.dense_top1, 2)})"
        yield f"top-1 accuracy {percent(parity.top1, 2)}{dense} on the same images"
    if parity.dense_cosine is not None:
        yield f"mean cosine to the dense model's features: {parity.dense_cosine:.4f}"
    yield from (f"  note: {text}" for text in parity.notes)
