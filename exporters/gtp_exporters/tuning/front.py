"""The front of what was timed, and the choice from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from gtp_exporters.tuning.results import Loss, Result, identity

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
        """Whether a timed trial keeps it: a drop with its standard error, and then something is gained by it."""
        assert result.loss is not None and result.timing is not None
        if self.max_drop is not None:
            return result.loss.limited + result.loss.limited_se <= self.max_drop and result.timing.ratio < 1
        assert self.latency_ms is not None
        return result.timing.p50_ms <= self.latency_ms

    def kept_by(self, loss: Loss, p50_ms: float) -> bool:
        """Whether what was measured of a choice on other images keeps it."""
        if self.max_drop is not None:
            return loss.limited <= self.max_drop
        assert self.latency_ms is not None
        return p50_ms <= self.latency_ms

    def violation(self, result: Result) -> float | None:
        """Return by how much a trial misses it, 0 or less if it does not; None where too little is known."""
        if self.max_drop is not None:
            return None if result.loss is None else result.loss.limited + result.loss.limited_se - self.max_drop
        assert self.latency_ms is not None
        return None if result.timing is None else result.timing.p50_ms / self.latency_ms - 1

    def ranked(self, results: Sequence[Result]) -> list[Result]:
        """Return those that keep it, the best first: the fastest within a drop, the closest within a latency."""
        return sorted(filter(self.holds, results), key=self._preferred)

    def nearest(self, results: Sequence[Result]) -> Result:
        """Return what comes nearest where nothing keeps the limit."""
        if self.latency_ms is not None:
            return min(results, key=lambda result: result.objectives[-1])
        gaining = [result for result in results if result.objectives[-1] < 1] or list(results)
        return min(gaining, key=lambda result: (_loss(result), result.objectives))

    def _preferred(self, result: Result) -> tuple[float, ...]:
        *losses, ratio = result.objectives
        return (ratio, *losses) if self.max_drop is not None else (losses[-1], ratio)


def _loss(result: Result) -> float:
    assert result.loss is not None
    return result.loss.limited + result.loss.limited_se


def front(results: Sequence[Result]) -> list[Result]:
    """Return the timed results that no other beats or equals in every objective, the fastest first.

    Where some are faster than the dense model, only these: it loses nothing.
    """
    found: list[Result] = []
    faster = [result for result in results if result.objectives[-1] < 1] or results
    for result in sorted(faster, key=lambda result: tuple(reversed(result.objectives))):
        if not any(_covers(other, result) for other in found):
            found.append(result)
    return found


def _covers(one: Result, other: Result) -> bool:
    return all(left <= right for left, right in zip(one.objectives, other.objectives, strict=True))


def beating(results: Sequence[Result], default: Result) -> list[Result]:
    """Return the timed results that lose less than the recipe's default and are faster, the fastest first."""
    assert default.loss is not None
    base = default.objectives
    better = [
        result
        for result in results
        if result.objectives[-1] < base[-1]
        and all(left <= right for left, right in zip(result.objectives, base, strict=True))
        and result.objectives[-2] < base[-2]
    ]
    return sorted(better, key=lambda result: result.objectives[-1])


def finalists(results: Sequence[Result], limit: Limit, default: Result) -> list[Result]:
    """Return what is timed again before the choice: the default first, then the best by the timings of the search.

    A trial's own timing is short, and the fastest of many is often one that was timed too fast.
    """
    ranked = (limit.ranked(results) or [limit.nearest(results)], beating(results, default))
    best = [result for found in ranked for result in _different(found)[:FINALISTS]]
    return _different([default, *best])


def _different(results: Sequence[Result]) -> list[Result]:
    """Return the first of those that are the same, in the given order."""
    found: dict[str, Result] = {}
    for result in results:
        found.setdefault(identity(result), result)
    return list(found.values())
