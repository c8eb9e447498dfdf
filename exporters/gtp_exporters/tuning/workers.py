"""Where the work of a search is done: here, or on other machines.

What is mapped are plain functions of a module on plain items, so both can be pickled. Optuna stays with the one who
maps: workers know nothing of trials.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from gtp_runtime.evaluation import Scoring, score_images
from gtp_runtime.fleet import Fleet, fleet_scoring

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(Protocol):
    """Runs functions on items.

    Attributes:
        trials: how many trials are worth being evaluated at a time.
    """

    trials: int

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Yield each item with its result, as results come, in any order; the first exception is raised.

        Args:
            function: a function of a module, called once for each item, or again if the machine that did so is lost.
            items: taken as they are needed.
        """
        ...

    def on_device(self, function: Callable[[Item], Result], item: Item) -> Result:
        """Call a function where latency is measured, one call at a time, with nothing else running there."""
        ...


class Local:
    """Runs everything in this process, one after another."""

    trials = 1

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Yield each item with its result, in order."""
        for item in items:
            yield item, function(item)

    def on_device(self, function: Callable[[Item], Result], item: Item) -> Result:
        """Call a function."""
        return function(item)


def scoring_of(workers: Workers) -> Scoring:
    """Return what ``gtp_runtime.evaluate`` scores images with: nodes read them where there are any."""
    return fleet_scoring(workers) if isinstance(workers, Fleet) else score_images
