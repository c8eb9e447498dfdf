"""Curves of single steps, and what they say of several.

A curve is the distance from the dense model when tokens leave in one layer alone, by how many leave. The tokens that
are easy to spare are mostly the same in all layers. So the next token costs what it costs after all that have left
before it, in whichever layer they did: a step that brings the number of absent tokens from M to N in layer L adds
``curve_L(N) - curve_L(M)``. On a ViT-S of 12 layers (20 random schedules of 2 to 6 steps at .745 of the MACs) this sum
is 9 % above the measured distances on average, with a rank correlation of .92; adding up the curves of single steps is
43 % below, with .63.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log

LEAST = 1e-12  # a distance that counts as none


@dataclass(frozen=True)
class Curve:
    """The distance by how many tokens leave in one layer alone.

    Attributes:
        layer: which, from 0.
        amounts: tokens that leave, ascending.
        distances: from the dense model, a mean over images, one an amount.
    """

    layer: int
    amounts: tuple[int, ...]
    distances: tuple[float, ...]


class Curves:
    """Predicts the distance of schedules from the curves of every layer."""

    def __init__(self, curves: Iterable[Curve]) -> None:
        self.points = {curve.layer: _logarithms(curve) for curve in curves}
        self._single: dict[tuple[int, int], float] = {}

    def predicted(self, num_prop: Sequence[int]) -> float:
        """Return the distance of a schedule, as the sum of what each step adds."""
        absent, total = 0, 0.0
        for layer, amount in enumerate(num_prop):
            if amount:
                total += max(0.0, self.single(layer, absent + amount) - self.single(layer, absent))
                absent += amount
        return total

    def single(self, layer: int, amount: int) -> float:
        """Return the distance where this number of tokens leaves in one layer; powers between the measured points."""
        if (layer, amount) not in self._single:
            self._single[layer, amount] = exp(_interpolated(self.points[layer], log(amount))) if amount else 0.0
        return self._single[layer, amount]


def _logarithms(curve: Curve) -> list[tuple[float, float]]:
    """Return the points of a curve as logarithms; a distance below that of fewer tokens is noise, and is raised."""
    points, highest = [], LEAST
    for amount, distance in zip(curve.amounts, curve.distances, strict=True):
        highest = max(highest, distance)
        points.append((log(amount), log(highest)))
    return points


def _interpolated(points: Sequence[tuple[float, float]], x: float) -> float:
    """Interpolate linearly, and extend the first and the last part; with one point the slope is 1."""
    if len(points) == 1:
        return points[0][1] + x - points[0][0]
    place = min(max(bisect_left(points, (x,)), 1), len(points) - 1)
    (left, low), (right, high) = points[place - 1 : place + 1]
    slope = (high - low) / (right - left)
    return low + (x - left) * (max(slope, 1.0) if x < left else slope)
