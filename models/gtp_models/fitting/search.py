"""The search for a schedule: curves of single layers, predictions from them, and schedules that are measured.

It goes in rounds. The best predictions, and what lies beside the best schedules so far, are measured; what was measured
corrects the predictions (``curves``), so that they are right where the search looks. The schedule that was asked for is
measured first: what is clearly behind the best is given up after the first images.
"""

import time
from collections.abc import Iterator, Sequence
from random import Random

from gtp_models.errors import ConfigError
from gtp_models.fitting.curves import LEAST, Curve, Curves
from gtp_models.fitting.distances import Judge
from gtp_models.fitting.space import Space, Units, steps_of
from gtp_models.schedules import CLOSE, Amounts
from gtp_runtime.messages import Progress

PAYS = 0.05  # share of the distance that another step has to save: what its selection costs would buy about as much
POINTS = (1 / 4, 1 / 2, 1)  # of what meets the budget in a layer alone: the points of its curve
STARTS = 12  # random schedules from which the predictions are searched, first
AGAIN = 4  # in every round after it
BATCH = 4  # schedules that are measured in a round
APART = 2  # units by which they differ, at least
PATIENCE = 3  # rounds without a better schedule, after which the search ends
MEASURED = 32  # schedules, at most
FLOOR = 0.01  # of the best distance: smaller differences teach nothing


class Search:
    """Searches schedules for the least distance from the dense model.

    Args:
        judge: measures schedules.
        space: the schedules.
        first: chunks of images for the curves.
        every: chunks for the schedules.
        seed: of the random schedules.
        deadline: by ``time.monotonic``: nothing is improved after it.
        progress: called with the current task.
    """

    def __init__(
        self,
        judge: Judge,
        space: Space,
        first: Sequence[int],
        every: Sequence[int],
        *,
        seed: int,
        deadline: float,
        progress: Progress,
    ) -> None:
        self.judge, self.space, self.first, self.every = judge, space, first, every
        self.random, self.deadline, self.progress = Random(seed), deadline, progress
        self.measured: dict[Amounts, float] = {}  # distances on all images, or as far as they were measured
        self.best: Amounts | None = None
        self.curves = tuple(self._measured_curves())
        self.predictions = Curves(self.curves, space.shape.depth, space.start)

    def run(self, asked: Sequence[Amounts]) -> Amounts:
        """Return the best schedule, beginning with those that were asked for; in smaller tiles while much of the budget
        is left.

        Raises:
            ConfigError: no schedule of the space meets the budget.
        """
        for num_prop in asked:
            self._measure(num_prop)
        space: Space | None = self.space
        while space is not None and (self.best is None or self.space.spare(self.best) > CLOSE or space is self.space):
            self._improve(space)
            space = space.finer()
        if self.best is None:
            raise ConfigError(
                f"no schedule of at most {self.space.steps} steps meets the budget: allow more steps, or keep more"
            )
        return self.best

    def _measured_curves(self) -> Iterator[Curve]:
        depth = self.space.shape.depth
        for layer in range(depth):
            self.progress("measuring each layer", layer / depth)
            most = self.space.alone(layer)
            counts = sorted({max(1, round(most * share)) for share in POINTS}) if most else []
            schedules = [self.space.amounts((0,) * layer + (count,) + (0,) * (depth - layer - 1)) for count in counts]
            if schedules and not self._is_over():  # a layer without a curve is not searched
                distances = tuple(self.judge.level(num_prop, self.first) for num_prop in schedules)
                yield Curve(layer, tuple(num_prop[layer] for num_prop in schedules), distances)

    def _is_over(self) -> bool:
        return len(self.measured) >= MEASURED or time.monotonic() > self.deadline

    def _improve(self, space: Space) -> None:
        """Measure the best predictions, and learn from them, until nothing better comes."""
        idle, starts = 0, STARTS
        while idle < PATIENCE:
            before = self.best
            for units in self._proposed(space, starts):
                if self._is_over():
                    return
                self.progress("improving the schedule", len(self.measured) / MEASURED)
                self._measure(space.amounts(units))
            idle, starts = (idle + 1 if self.best == before else 0), AGAIN
            if self.best is not None:
                self.predictions.learn(list(self.measured.items()), max(LEAST, FLOOR * self.measured[self.best]))

    def _proposed(self, space: Space, starts: int) -> list[Units]:
        """Return the best predictions that are not measured yet, unlike one another."""
        values: dict[Units, float] = {}
        for units in [*self._random(space, starts), *self._leaders(space)]:
            self._climb(units, space, values)
        chosen: list[Units] = []
        for units in sorted(values, key=lambda units: (values[units], units)):
            is_new = space.amounts(units) not in self.measured
            if is_new and all(_apart(units, other) > APART for other in chosen):
                chosen.append(units)
            if len(chosen) == BATCH:
                break
        return chosen

    def _climb(self, units: Units, space: Space, values: dict[Units, float]) -> None:
        """Go from a schedule to the best prediction beside it until none is better; ``values`` gets all predictions."""
        while True:
            beside = {units, *filter(self.predictions.covers, space.moves(units))}
            for other in beside - values.keys():
                values[other] = self.predictions.predicted(space.amounts(other)) * _dearer(other)
            best = min(beside, key=lambda other: (values[other], other))
            if best == units:
                return
            units = best

    def _random(self, space: Space, count: int) -> Iterator[Units]:
        layers = sorted(self.predictions.points)
        for _ in range(count if layers else 0):
            chosen = self.random.sample(layers, self.random.randint(1, min(space.steps, len(layers))))
            units = tuple(int(layer in chosen) for layer in range(space.shape.depth))
            solved = [space.solved(units, layer) for layer in chosen]
            yield from [units for units in solved if units][:1]

    def _leaders(self, space: Space) -> list[Units]:
        """Return the best schedules that were measured, where they keep to the tile and use layers with a curve."""
        ranked = sorted(self.measured, key=lambda num_prop: (self.value(num_prop), num_prop))
        units = [space.units(num_prop) for num_prop in ranked[:BATCH]]
        return [one for one in units if one and self.predictions.covers(one)]

    def value(self, num_prop: Amounts) -> float:
        """Return the distance of a measured schedule, with what its steps cost."""
        return self.measured[num_prop] * _dearer(num_prop)

    def _measure(self, num_prop: Amounts) -> None:
        """Measure a schedule, on all images unless it is clearly behind the best."""
        rival = self.best
        if rival is None:
            self.measured[num_prop] = self.judge.level(num_prop, self.every)
        else:
            chunks = self.judge.raced(num_prop, rival, _dearer(num_prop) / _dearer(rival), self.every)
            share = self.judge.level(num_prop, chunks) / max(LEAST, self.judge.level(rival, chunks))
            self.measured[num_prop] = share * self.measured[rival]
        if rival is None or (len(chunks) == len(self.every) and self.value(num_prop) < self.value(rival)):
            self.best = num_prop


def _dearer(schedule: Sequence[int]) -> float:
    """Return the factor by which a schedule counts as worse for its steps."""
    return float((1 + PAYS) ** steps_of(schedule))


def _apart(first: Units, second: Units) -> int:
    return sum(abs(one - other) for one, other in zip(first, second, strict=True))
