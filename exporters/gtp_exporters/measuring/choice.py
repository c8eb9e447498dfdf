"""What a search is for, and what is chosen of its results: limit, options, finalists, and what beats the default."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gtp_exporters.errors import LimitError
from gtp_exporters.measuring.candidate import INT8, PLAIN, Running
from gtp_exporters.measuring.result import Loss, Result, is_timed
from gtp_models.methods.settings import is_int, is_number
from gtp_runtime.metrics import Own

FINALISTS = 4  # that are timed again, for the choice, and for what beats the default
SECONDS = 2.0  # of timing, for two files together


@dataclass(frozen=True)
class Limit:
    """What the user asked for: one of the three.

    Attributes:
        max_drop: points of top-1.
        latency_ms: milliseconds per run, median.
        max_distance: of the metric, in its unit.
    """

    max_drop: float | None = None
    latency_ms: float | None = None
    max_distance: float | None = None

    @property
    def is_of_loss(self) -> bool:
        """Whether it says how much may be lost."""
        return self.latency_ms is None

    @property
    def most(self) -> float:
        """How much may be lost: points, or in the metric's unit."""
        value = self.max_distance if self.max_drop is None else self.max_drop
        assert value is not None
        return value

    @property
    def option(self) -> str:
        """The option of the command line that says it."""
        return "--max-distance" if self.max_drop is None else "--max-drop"

    def lost(self, loss: Loss) -> float:
        """Return how much is lost, in the unit of ``most``."""
        return loss.distance if self.max_drop is None else loss.points

    def error(self, loss: Loss) -> float:
        """Return its standard error; 0 where it is not known."""
        return (loss.distance_se or 0.0) if self.max_drop is None else loss.points_se

    def words(self, loss: Loss) -> str:
        """Return how much is lost, in words."""
        if self.max_drop is not None:
            return f"{loss.points:.2f} ± {loss.points_se:.2f} points"
        return f"{loss.distance:.3g} ± {loss.distance_se or 0.0:.2g} of {loss.metric}"

    def holds(self, result: Result) -> bool:
        """Whether a timed result keeps it: a loss with its standard error, and never slower than the dense model."""
        assert result.loss is not None and result.timing is not None
        if self.is_of_loss:
            return self.lost(result.loss) + self.error(result.loss) <= self.most and result.ratio < 1
        assert self.latency_ms is not None
        return result.timing.p50_ms <= self.latency_ms and result.ratio <= 1

    def is_kept(self, proven: Result) -> bool:
        """Whether what was measured of a choice on other images, and timed again beside dense, keeps it."""
        assert proven.loss is not None and proven.timing is not None
        if self.is_of_loss:
            return self.lost(proven.loss) <= self.most and proven.ratio < 1
        assert self.latency_ms is not None
        return proven.timing.p50_ms <= self.latency_ms and proven.ratio <= 1

    def violation(self, result: Result) -> float | None:
        """Return by how much a trial misses it, 0 or less if it does not; None where too little is known."""
        if self.is_of_loss:
            return None if result.loss is None else self.lost(result.loss) + self.error(result.loss) - self.most
        assert self.latency_ms is not None
        return None if result.timing is None else result.timing.p50_ms / self.latency_ms - 1

    def ranked(self, results: Iterable[Result]) -> list[Result]:
        """Return those that keep it, the best first: the fastest within a drop, the nearest to dense in a latency."""
        return sorted((one for one in results if is_timed(one) and self.holds(one)), key=self._preferred)

    def nearest(self, results: Iterable[Result]) -> Result:
        """Return what comes nearest where nothing keeps the limit."""
        timed = list(filter(is_timed, results))
        if self.latency_ms is not None:
            return min(timed, key=lambda one: one.ratio)
        gaining = [one for one in timed if one.ratio < 1] or timed
        return min(gaining, key=lambda one: (self._bound(one), one.objectives))

    def _preferred(self, result: Result) -> tuple[float, ...]:
        *losses, ratio = result.objectives
        return (ratio, *losses) if self.is_of_loss else (losses[-1], ratio)

    def _bound(self, result: Result) -> float:
        assert result.loss is not None
        return self.lost(result.loss) + self.error(result.loss)


@dataclass(frozen=True)
class TuneOptions:
    """Options of a search.

    Attributes:
        limit: what is wanted: at most so many points of top-1 lost, at most so far from the dense model, or at most so
            many milliseconds.
        data: a folder of images, one sub-folder a class where known (default: the recipe's own).
        labels: a file with the class of each image, in place of sub-folders.
        trials: how many are tried in all, those of earlier processes included; repeats are none.
        seconds: after which nothing further is tried; None for no end.
        images: how many images the search sees at most; None for all but those that are held out.
        precisions: of the graphs that are tried.
        int8: try what is on the front in int8 as well, where there are images to calibrate it on.
        calib_data: images to calibrate int8 and thresholds on (default: the recipe's own).
        batch: images per run.
        running: how float32 files run where latency is measured.
        timing: seconds of timing for two files.
        seed: of what Optuna draws, and of the order of the images.
        output, layers, classes_from, metric: as of ``CompareOptions``.

    Raises:
        LimitError: a value that is not allowed.
    """

    limit: Limit
    data: Path | None = None
    labels: Path | None = None
    trials: int = 100
    seconds: float | None = None
    images: int | None = None
    precisions: tuple[str, ...] = (PLAIN,)
    int8: bool = True
    calib_data: Path | None = None
    batch: int = 1
    running: Running = field(default_factory=lambda: Running("onnxruntime"))
    timing: float = field(default_factory=lambda: SECONDS)
    seed: int = 0
    output: str = "auto"
    layers: tuple[int, ...] = ()
    classes_from: Path | None = None
    metric: Own | None = None

    def __post_init__(self) -> None:
        given = [value for value in vars(self.limit).values() if value is not None]
        if len(given) != 1:
            raise LimitError(
                f"{len(given)} of max_drop, max_distance and latency_ms given: a search needs one of --max-drop "
                "POINTS, --max-distance VALUE and --latency-budget TIME"
            )
        if not is_number(given[0]) or not math.isfinite(given[0]) or given[0] < 0:
            raise LimitError(f"the limit {given[0]!r} is not a finite number of 0 or more")
        for name, least in (("trials", 1), ("batch", 1), ("images", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and (not is_int(value) or value < least):
                raise LimitError(f"{name}={value!r}: give a whole number of at least {least}")
        if self.seconds is not None and not (is_number(self.seconds) and 0 < self.seconds < math.inf):
            raise LimitError(f"seconds={self.seconds!r}: give a finite number above 0")
        known = self.running.precisions
        unknown = [name for name in self.precisions if name not in known]
        if unknown or not self.precisions:
            raise LimitError(
                f"precision {', '.join(unknown) or 'missing'}: choose from {', '.join(known)}; {INT8} is "
                "tried for what is on the front"
            )


def beating(results: Iterable[Result], default: Result) -> list[Result]:
    """Return the timed results that lose less than the recipe's default and are faster, the fastest first."""
    base = default.objectives
    better = [
        one
        for one in filter(is_timed, results)
        if one.is_better(default) and all(left <= right for left, right in zip(one.objectives, base, strict=True))
    ]
    return sorted(better, key=lambda one: one.ratio)


def finalists(results: Sequence[Result], limit: Limit, default: Result, most: int = FINALISTS) -> list[Result]:
    """Return what is timed again before the choice: the default first, then the best by the timings of the search.

    A trial's own timing is short, and the fastest of many is often one that was timed too fast.
    """
    ranked = (limit.ranked(results) or [limit.nearest(results)], beating(results, default))
    return different([default, *(one for best in ranked for one in different(best)[:most])])


def different(results: Iterable[Result]) -> list[Result]:
    """Return the first of those that are the same, in the given order."""
    first: dict[str, Result] = {}
    for one in results:
        first.setdefault(one.identity, one)
    return list(first.values())


def first_that_holds(results: Sequence[Result], holds: Callable[[Result], bool]) -> Result | None:
    """Return the first that holds; the first of all if none does, None where there is none."""
    return next(filter(holds, results), results[0] if results else None)
