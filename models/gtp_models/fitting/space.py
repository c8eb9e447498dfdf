"""The schedules of a budget: whole tiles of tokens leave in a few layers, as few as the budget allows.

A schedule costs MACs, or with a device's times by number of tokens its time. It is written as units: how many tiles
leave in each layer. The first step also takes what makes the number of tokens a multiple of the tile.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

from gtp_models.errors import ConfigError
from gtp_models.methods.settings import ModelShape, Settings
from gtp_models.plan import token_counts
from gtp_models.schedules import TILES, TILES_IN, Amounts, Costs

Units = tuple[int, ...]


@dataclass(frozen=True)
class TimeCosts:
    """Seconds of a schedule on a device: ``keep`` is then a share of the dense model's time.

    Attributes:
        settings: of the method.
        shape: the properties of the model.
        block: from the number of tokens (prefix included) to the seconds of a dense block.
        step: from the tokens in a layer that reduces and how many leave to the seconds of selecting and merging.
        rest: seconds of the patch embedding and the head.
    """

    settings: Settings
    shape: ModelShape
    block: Callable[[int], float]
    step: Callable[[int, int], float] = lambda tokens, amount: 0.0
    rest: float = 0.0

    @property
    def dense(self) -> float:
        """Seconds of the dense model."""
        return self.rest + self.shape.depth * self.block(self.shape.patches + self.shape.num_prefix)

    def backbone(self, num_prop: Sequence[int]) -> float:
        """Return the seconds of a schedule: half of a block sees the tokens before its step, half those after it.

        Raises:
            ConfigError: more tokens leave than there are.
        """
        counts = token_counts(self.settings, self.shape, num_prop)
        blocks = sum((self.block(before) + self.block(after)) / 2 for before, after in pairwise(counts))
        steps = zip(counts[:-1], num_prop, strict=True)
        return self.rest + blocks + sum(self.step(count, amount) for count, amount in steps if amount)


@dataclass(frozen=True)
class Space:
    """Schedules within a budget.

    Attributes:
        settings: of the method.
        shape: the properties of the model.
        costs: what schedules cost.
        budget: the most that one may cost.
        tile: every number of tokens after the first step, prefix included, is a multiple.
        steps: layers that may reduce, at most.
    """

    settings: Settings
    shape: ModelShape
    costs: Costs
    budget: float
    tile: int
    steps: int
    _costs: dict[Units, float] = field(default_factory=dict, init=False, repr=False, compare=False)
    _moves: dict[Units, set[Units]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def joins(self) -> int:
        """Tokens that a step adds."""
        return self.settings.joins

    @cached_property
    def start(self) -> int:
        """Tokens before the first layer."""
        return self.shape.patches + self.shape.num_prefix

    def amounts(self, units: Units) -> Amounts:
        """Return the tokens that leave in each layer."""
        first = next((layer for layer, count in enumerate(units) if count), None)
        extra = [self.joins + (self.start % self.tile if layer == first else 0) for layer in range(len(units))]
        return tuple(count * self.tile + more if count else 0 for count, more in zip(units, extra, strict=True))

    def cost(self, units: Units) -> float:
        """Return the cost of a schedule, infinite where it does not fit the model."""
        if units not in self._costs:
            try:
                self._costs[units] = self.costs.backbone(self.amounts(units))
            except ConfigError:
                self._costs[units] = float("inf")
        return self._costs[units]

    def solved(self, units: Units, layer: int) -> Units | None:
        """Return the schedule with the fewest units in this layer that meet the budget; None if no number does."""
        candidates = [(*units[:layer], count, *units[layer + 1 :]) for count in range(self.start // self.tile)]
        place = bisect_left(candidates, True, key=self._stops)
        return candidates[place] if place < len(candidates) and self.cost(candidates[place]) <= self.budget else None

    def alone(self, layer: int) -> int:
        """Return how many units meet the budget in one layer, or else the most that can leave there."""
        none = (0,) * self.shape.depth
        candidates = [(*none[:layer], count, *none[layer + 1 :]) for count in range(self.start // self.tile)]
        place = bisect_left(candidates, True, key=self._stops)
        return place if place < len(candidates) and self.cost(candidates[place]) <= self.budget else place - 1

    def _stops(self, units: Units) -> bool:
        """Whether more units make no sense: the budget is met, or the model has no more tokens to take."""
        return not self.budget < self.cost(units) < float("inf")

    def moves(self, units: Units) -> set[Units]:
        """Return the schedules beside this one: a step in another layer, units from one step to another, steps more
        or fewer; each then solved for the budget in each of its steps.
        """
        if units not in self._moves:
            changed = {units, *self._shifted(units), *self._without(units), *self._with(units), *self._traded(units)}
            solved = {self.solved(other, layer) for other in changed for layer in _steps(other)}
            fits = {other for other in solved if other and steps_of(other) <= self.steps}
            self._moves[units] = fits - {units}
        return self._moves[units]

    def _shifted(self, units: Units) -> Iterator[Units]:
        for step in _steps(units):
            for layer in (step - 1, step + 1):
                if 0 <= layer < len(units) and not units[layer]:
                    yield _swapped(units, step, layer)

    def _without(self, units: Units) -> Iterator[Units]:
        for step in _steps(units):
            yield (*units[:step], 0, *units[step + 1 :])

    def _with(self, units: Units) -> Iterator[Units]:
        for layer, count in enumerate(units):
            if not count:
                yield (*units[:layer], 1, *units[layer + 1 :])

    def _traded(self, units: Units) -> Iterator[Units]:
        for step in _steps(units):
            for change in (-1, 1):
                yield (*units[:step], units[step] + change, *units[step + 1 :])

    def finer(self) -> "Space | None":
        """Return the space of half the tile; None for single tokens."""
        return replace(self, tile=self.tile // 2) if self.tile > 1 else None

    def units(self, amounts: Amounts) -> Units | None:
        """Return the units of a schedule; None where its numbers of tokens do not keep to the tile."""
        units = tuple(max(0, amount - self.joins) // self.tile for amount in amounts)
        return units if self.amounts(units) == amounts else None

    def spare(self, num_prop: Amounts) -> float:
        """Return what a schedule leaves of the budget, as a share of the dense model's cost."""
        return (self.budget - self.costs.backbone(num_prop)) / self.costs.dense


def tile_for(tokens: int) -> int:
    """Return the largest tile for this number of tokens; 1 where none is small enough."""
    return next((tile for tile in TILES if tile * TILES_IN <= tokens), 1)


def steps_of(units: Sequence[int]) -> int:
    """Return how many layers reduce."""
    return len(_steps(units))


def _steps(units: Sequence[int]) -> list[int]:
    return [layer for layer, count in enumerate(units) if count]


def _swapped(units: Units, first: int, second: int) -> Units:
    values = list(units)
    values[first], values[second] = values[second], values[first]
    return tuple(values)
