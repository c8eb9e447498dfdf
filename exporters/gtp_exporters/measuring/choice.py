"""What a search is for, and what is chosen of its results: the limit, the finalists, and what beats the default."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gtp_exporters.measuring.result import Result, is_timed

FINALISTS = 4  # that are timed again, for the choice, and for what beats the default


@dataclass(frozen=True)
class Limit:
    """What the user asked for: one of the two.

    Attributes:
        max_drop: points of top-1.
        latency_ms: milliseconds per run, median.
    """

    max_drop: float | None = None
    latency_ms: float | None = None

    def holds(self, result: Result) -> bool:
        """Whether a timed result keeps it: a drop with its standard error, and never slower than the dense model."""
        assert result.loss is not None and result.timing is not None
        if self.max_drop is not None:
            return result.loss.points + result.loss.points_se <= self.max_drop and result.ratio < 1
        assert self.latency_ms is not None
        return result.timing.p50_ms <= self.latency_ms and result.ratio <= 1

    def is_kept(self, proven: Result) -> bool:
        """Whether what was measured of a choice on other images, and timed again beside dense, keeps it."""
        assert proven.loss is not None and proven.timing is not None
        if self.max_drop is not None:
            return proven.loss.points <= self.max_drop and proven.ratio < 1
        assert self.latency_ms is not None
        return proven.timing.p50_ms <= self.latency_ms and proven.ratio <= 1

    def violation(self, result: Result) -> float | None:
        """Return by how much a trial misses it, 0 or less if it does not; None where too little is known."""
        if self.max_drop is not None:
            return None if result.loss is None else result.loss.points + result.loss.points_se - self.max_drop
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
        return min(gaining, key=lambda one: (_points(one), one.objectives))

    def _preferred(self, result: Result) -> tuple[float, ...]:
        *losses, ratio = result.objectives
        return (ratio, *losses) if self.max_drop is not None else (losses[-1], ratio)


def _points(result: Result) -> float:
    assert result.loss is not None
    return result.loss.points + result.loss.points_se


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
