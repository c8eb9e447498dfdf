"""The one record of what was measured of a candidate: what it loses, how long it takes, what it costs beside."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import msgspec

from gtp_exporters.measuring.candidate import Candidate
from gtp_models.methods import make_settings
from gtp_models.methods.settings import Settings
from gtp_runtime import Accuracy, Footprint, Latency
from gtp_runtime.accuracy import DENSE, DIVERGENCE

NOISY = 0.25  # spread of a file's times above which they say little
QUARTILES = (5, 15)  # of ``Latency.quantiles_ms``, which has one for every 5 %


@dataclass(frozen=True)
class Loss:
    """How a candidate answers, beside the dense model, on the same images. Shares are in 0..1.

    Attributes:
        images: how many were measured; ``unreadable`` more could not be read.
        distance, distance_se: how much worse ``metric`` is than the dense model's, and its standard error, which is
            None as well where the metric is of all images together.
        agreement: share of images with the dense model's best class; None without classes.
        top1, top1_se, top5: accuracy, of what ``quality`` says; None where classes are unknown.
        dense_top1: the dense model's.
        top1_drop, top1_drop_se: ``dense_top1 - top1`` and its standard error, paired; None where classes are unknown.
        metric, unit, value, dense_value, quality, measures: as of ``gtp_runtime.Accuracy``.
    """

    images: int
    distance: float
    distance_se: float | None = None
    agreement: float | None = None
    top1: float | None = None
    top1_se: float | None = None
    top5: float | None = None
    dense_top1: float | None = None
    top1_drop: float | None = None
    top1_drop_se: float | None = None
    unreadable: int = 0
    metric: str = DIVERGENCE.name
    unit: str = DIVERGENCE.unit
    value: float | None = None
    dense_value: float | None = None
    quality: str = ""
    measures: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, accuracy: Accuracy) -> "Loss":
        """Return what an accuracy beside the dense model says."""
        return cls(**{entry.name: getattr(accuracy, entry.name) for entry in fields(cls)})

    @classmethod
    def of_dense(cls, beside: "Accuracy | Loss") -> "Loss":
        """Return the dense model's own, from what was measured beside it."""
        top1, images, many = beside.dense_top1, beside.images, beside.images > 1
        zero = None if top1 is None else 0.0
        measures = {
            name.removeprefix(DENSE): value for name, value in beside.measures.items() if name.startswith(DENSE)
        }
        return cls(
            images,
            0.0,
            0.0 if many else None,
            agreement=None if beside.agreement is None else 1.0,
            top1=top1,
            top1_se=(top1 * (1 - top1) / (images - 1)) ** 0.5 if top1 is not None and many else None,
            top5=beside.dense_top5 if isinstance(beside, Accuracy) else None,
            dense_top1=top1,
            top1_drop=zero,
            top1_drop_se=zero if many else None,
            unreadable=beside.unreadable,
            metric=beside.metric,
            unit=beside.unit,
            value=beside.dense_value,
            dense_value=beside.dense_value,
            quality=beside.quality,
            measures=measures,
        )

    @property
    def points(self) -> float:
        """What a limit of top-1 holds for, in points: the drop, or what bounds it where classes are unknown."""
        share = (
            self.top1_drop if self.top1_drop is not None else 1 - (1.0 if self.agreement is None else self.agreement)
        )
        return 100 * share

    @property
    def points_se(self) -> float:
        """Its standard error."""
        if self.top1_drop is not None:
            return 100 * (self.top1_drop_se or 0.0)
        share = self.points / 100
        return float(100 * (share * (1 - share) / self.images) ** 0.5)


@dataclass(frozen=True)
class Timing:
    """Latency of a graph beside the dense model, in turn in one process.

    Attributes:
        p50_ms, dense_ms: medians of both, in milliseconds per run.
        spread: from the first to the third quartile of its runs, over the median.
        cached: whether it was measured for another candidate with the same shapes.
    """

    p50_ms: float
    dense_ms: float
    spread: float = 0.0
    cached: bool = False

    @classmethod
    def of(cls, latency: Latency) -> "Timing":
        """Return that of a file that was timed in turn with the dense model."""
        quantiles = latency.quantiles_ms
        low, high = (quantiles[place] for place in QUARTILES) if quantiles else (0.0, latency.cv * latency.p50_ms)
        return cls(latency.p50_ms, latency.p50_ms / latency.ratio, (high - low) / latency.p50_ms)

    @property
    def ratio(self) -> float:
        """Latency relative to the dense model."""
        return self.p50_ms / self.dense_ms

    @property
    def is_noisy(self) -> bool:
        """Whether the times differ too much to say much."""
        return self.spread > NOISY


@dataclass(frozen=True)
class Result:
    """A candidate, and what was measured of it; what was not is None.

    Attributes:
        name: of the method or trial, in tables.
        method: the method's own name.
        settings: its settings, as plain values.
        backend, precision: how it ran.
        num_prop: tokens that are removed in each layer.
        macs: multiply-accumulates of the backbone for one image.
        macs_ratio: these over the dense model's; ``total_ratio`` with those of the method itself.
        loss, timing, cost: what it loses, its latency, and its size, memory and cold start.
        share: share of the saved MACs that becomes saved time, against the dense model in the same precision.
        is_front: whether no other is both faster and nearer to the dense model.
        budget: what it was asked to spend, for a grid: {"keep": 0.75}.
        command: options of ``gtp-export export`` that give these settings.
        convert: options of ``gtp-export convert`` that make this file of that export; none for an ONNX file.
        published: published top-1 of these settings, in percent.
        trial: its number in a search; None for what no trial made.
        parameters: of the trial, as the search proposed them.
        estimate: of the latency ratio before it was measured.
        rungs: mean distance on the images of each rung that it reached.
        why: the reason why it was not timed.
    """

    name: str
    method: str
    settings: dict[str, Any]
    backend: str
    precision: str
    num_prop: list[int]
    macs: int
    macs_ratio: float
    total_ratio: float
    loss: Loss | None = None
    timing: Timing | None = None
    cost: Footprint | None = None
    share: float | None = None
    is_front: bool = False
    budget: dict[str, Any] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    convert: list[str] = field(default_factory=list)
    published: float | None = None
    trial: int | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    estimate: float | None = None
    rungs: list[float] = field(default_factory=list)
    why: str = ""

    @classmethod
    def of(cls, candidate: Candidate, **values: Any) -> "Result":
        """Return the record of a candidate, with what is known of it."""
        plan, running = candidate.plan, candidate.running
        return cls(
            name=candidate.name,
            method=candidate.settings.name,
            settings=candidate.settings.to_dict(),
            backend=running.backend,
            precision=running.precision,
            num_prop=list(plan.num_prop),
            macs=plan.backbone,
            macs_ratio=plan.ratio,
            total_ratio=plan.total / plan.dense,
            convert=running.conversion,
            **values,
        )

    def made_settings(self) -> Settings:
        """Return its settings, as ``apply`` and ``export_module`` take them."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in self.settings.items()}
        values.pop("preset", None)  # for people: it sums up others
        return make_settings(self.method, **values)

    @property
    def identity(self) -> str:
        """A text that tells settings and precision from others."""
        return f"{self.method} {sorted(self.settings.items())} {self.precision}"

    @property
    def ratio(self) -> float:
        """Latency relative to the dense model; it must have been timed."""
        assert self.timing is not None
        return self.timing.ratio

    @property
    def distance(self) -> float:
        """Mean distance from the dense model; it must have been measured."""
        assert self.loss is not None
        return self.loss.distance

    @property
    def objectives(self) -> tuple[float, ...]:
        """What is minimised: top-1 drop where classes are known, distance, and latency relative to dense.

        A gain in top-1 counts as no drop: among many candidates, a few gain by chance.
        """
        assert self.loss is not None
        drop = () if self.loss.top1_drop is None else (max(0.0, self.loss.top1_drop),)
        return (*drop, self.loss.distance, self.ratio)

    def is_better(self, other: "Result") -> bool:
        """Whether it is nearer to the dense model and faster than another."""
        return self.distance < other.distance and self.ratio < other.ratio

    def to_dict(self) -> dict[str, Any]:
        """Return plain values without nesting, for documents."""
        values = {name: value for name, value in asdict(self).items() if name not in ("loss", "timing", "cost")}
        parts = (self.loss or _NO_LOSS, self.timing or _NO_TIMING, self.cost or Footprint(0))
        measured = [asdict(part) for part in parts]
        for part, known in zip(measured, (self.loss, self.timing, self.cost), strict=True):
            values |= part if known is not None else dict.fromkeys(part)
        return values | {"ratio": None if self.timing is None else self.timing.ratio}

    @classmethod
    def read(cls, values: Any) -> "Result":
        """Return what ``asdict`` was made of.

        Raises:
            msgspec.ValidationError: other values.
        """
        return msgspec.convert(values, cls)


_NO_LOSS, _NO_TIMING = Loss(0, 0.0), Timing(1.0, 1.0)


def with_front(results: Sequence[Result]) -> list[Result]:
    """Mark the results that no other of the same backend beats in both latency and distance."""
    return [replace(one, is_front=not any(_beats(other, one) for other in results)) for one in results]


def _beats(other: Result, one: Result) -> bool:
    if other.backend != one.backend:
        return False
    pairs = ((other.ratio, one.ratio), (other.distance, one.distance))
    return all(left <= right for left, right in pairs) and any(left < right for left, right in pairs)


def front(results: Iterable[Result]) -> list[Result]:
    """Return the timed results that no other beats or equals in every objective, the fastest first.

    The dense model is one of them where it is among the results: what is slower than it is beaten by it.
    """
    chosen: list[Result] = []
    for one in sorted(filter(is_timed, results), key=lambda one: tuple(reversed(one.objectives))):
        if not any(_covers(other, one) for other in chosen):
            chosen.append(one)
    return chosen


def is_timed(result: Result) -> bool:
    """Whether a result has a latency and a loss."""
    return result.timing is not None and result.loss is not None


def _covers(one: Result, other: Result) -> bool:
    return all(left <= right for left, right in zip(one.objectives, other.objectives, strict=True))
