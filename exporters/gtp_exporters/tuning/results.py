"""What is known of settings that were tried."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import msgspec

from gtp_exporters.tuning.space import Proposal
from gtp_models.methods.gtp.config import GTPConfig
from gtp_runtime.accuracy import Accuracy
from gtp_runtime.latency import Latency


@dataclass(frozen=True)
class Timing:
    """Latency of a graph beside the dense baseline, in turn in one process.

    Attributes:
        p50_ms, dense_ms: medians of both.
        key: what it depends on: token counts, method, precision, backend.
        cached: whether it was measured for other settings with the same key.
    """

    p50_ms: float
    dense_ms: float
    key: str
    cached: bool = False

    @classmethod
    def of(cls, latency: Latency, key: str) -> "Timing":
        """Return the timing of a file that was timed in turn with the dense baseline."""
        return cls(latency.p50_ms, latency.p50_ms / latency.ratio, key)

    @property
    def ratio(self) -> float:
        """Latency relative to the dense baseline."""
        return self.p50_ms / self.dense_ms


@dataclass(frozen=True)
class Loss:
    """What settings lose against the dense model on some images; drops are in points.

    Attributes:
        images: how many.
        divergence, divergence_se: mean Kullback-Leibler divergence from the dense class probabilities in nats, and its
            standard error.
        changed: share of images with another best class than the dense model's, in points: top-1 cannot drop by more.
        drop, drop_se: top-1 below dense, and its standard error; None without classes.
    """

    images: int
    divergence: float
    divergence_se: float
    changed: float
    drop: float | None = None
    drop_se: float | None = None

    @classmethod
    def of(cls, found: Accuracy) -> "Loss":
        """Return what an accuracy says of it."""
        assert found.divergence is not None and found.agreement is not None
        drop = None if found.top1_drop is None else 100 * found.top1_drop
        error = None if drop is None else 100 * (found.top1_drop_se or 0.0)
        return cls(found.images, found.divergence, found.divergence_se or 0.0, 100 * (1 - found.agreement), drop, error)

    @property
    def limited(self) -> float:
        """What --max-drop limits, in points: the drop, or what bounds it where classes are unknown."""
        return self.changed if self.drop is None else self.drop

    @property
    def limited_se(self) -> float:
        """Its standard error."""
        if self.drop is not None:
            return self.drop_se or 0.0
        share = self.changed / 100
        return float(100 * (share * (1 - share) / self.images) ** 0.5)


@dataclass(frozen=True)
class Result:
    """A trial.

    Attributes:
        settings: GTP's, as plain values.
        precision: of the graph.
        num_prop: tokens that are removed in each layer.
        macs_ratio: MACs of backbone and method over the dense model's.
        estimate: of the latency ratio, before it is measured.
        loss: on the images that it was judged on.
        rungs: divergence on the first images of each rung that it reached.
        timing: its latency; None if it was not exported.
        why: the reason for that.
        trial: its number; None for the recipe's default.
    """

    settings: dict[str, Any]
    precision: str
    num_prop: list[int]
    macs_ratio: float
    estimate: float
    loss: Loss | None = None
    rungs: list[float] = field(default_factory=list)
    timing: Timing | None = None
    why: str = ""
    trial: int | None = None

    @property
    def proposal(self) -> Proposal:
        """The settings and the precision."""
        return Proposal(_config(self.settings), self.precision)

    @property
    def objectives(self) -> tuple[float, ...]:
        """What is minimised: top-1 drop where classes are known, divergence, and latency relative to dense.

        A gain in top-1 counts as no drop: among many trials, a few gain by chance.
        """
        assert self.loss is not None and self.timing is not None
        drop = () if self.loss.drop is None else (max(0.0, self.loss.drop),)
        return (*drop, self.loss.divergence, self.timing.ratio)

    def without_timing(self, why: str) -> "Result":
        """Return the result of a trial that ended before it was timed."""
        return replace(self, why=why)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, the latency ratio among them."""
        return asdict(self) | {"ratio": None if self.timing is None else self.timing.ratio}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Result":
        """Return what ``to_dict`` was made of.

        Raises:
            msgspec.ValidationError: other values.
        """
        return msgspec.convert({name: value for name, value in values.items() if name != "ratio"}, cls)


def _config(values: dict[str, Any]) -> GTPConfig:
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return GTPConfig(**given)


def identity(result: Result) -> str:
    """Return what tells settings and precision from others."""
    return f"{sorted(result.settings.items())} {result.precision}"


def timed(results: Iterable[Result]) -> list[Result]:
    """Return those with a latency."""
    return [result for result in results if result.timing is not None]


def timed_again(result: Result, latencies: Mapping[str, Latency]) -> Result:
    """Return a result with the new latency of its settings, where there is one by identity."""
    found = latencies.get(identity(result))
    if result.timing is None or found is None:
        return result
    return replace(result, timing=Timing.of(found, result.timing.key))
