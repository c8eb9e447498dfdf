"""How many tokens leave where: schedules that spend the same MACs differently over the layers."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

from gtp_models.errors import ConfigError
from gtp_models.methods.settings import ModelShape, Settings

KINDS = "even, early, late, every:K, aligned:M"
NEAR = 0.02  # of the dense model's MACs: a schedule further from its budget is refused
STEPS = 2000  # tries between no and all tokens
Amounts = tuple[int, ...]


class Costs(Protocol):
    """What a schedule is judged by."""

    dense: int

    def backbone(self, num_prop: Sequence[int]) -> int:
        """Return the MACs of a schedule, or raise ``ConfigError`` where it does not fit."""
        ...


def resolve(settings: Settings, shape: ModelShape, costs: Costs) -> Amounts:
    """Return how many tokens leave in each layer.

    ``schedule`` is "even" (as evenly as whole tokens go), "early" or "late" (linearly more in the first or last
    layers), "every:K" (in every K-th layer alone), "aligned:M" (even, and each layer has a multiple of M tokens, prefix
    tokens included, from its first reduction on). Its budget is ``macs``, ``keep``, or what ``num_prop`` takes.

    Raises:
        ConfigError: another number of layers, an unknown schedule, or a budget that no such schedule comes near.
    """
    if settings.num_prop is not None:
        given = _per_layer(settings.num_prop, shape.depth)
        if settings.schedule is None:
            costs.backbone(given)  # raises where it does not fit
            return given
        wanted = float(costs.backbone(given))
    else:
        wanted = settings.macs if settings.macs is not None else (settings.keep or 1) * costs.dense
    return _nearest(settings.schedule or "even", wanted, shape, costs)


def _per_layer(num_prop: int | Amounts, depth: int) -> Amounts:
    if isinstance(num_prop, int):
        return (num_prop,) * depth
    if len(num_prop) != depth:
        raise ConfigError(
            f"num_prop has {len(num_prop)} entries, but the model has {depth} layers: "
            f"give {depth} entries, or one number for all"
        )
    return num_prop


def _nearest(kind: str, wanted: float, shape: ModelShape, costs: Costs) -> Amounts:
    make = _maker(kind, shape)
    candidates = list(dict.fromkeys(make(share / STEPS) for share in range(STEPS + 1)))
    fitting = {schedule: cost for schedule in candidates if (cost := _cost(schedule, costs)) is not None}
    best = min(fitting, key=lambda schedule: abs(fitting[schedule] - wanted))
    if abs(fitting[best] - wanted) > NEAR * costs.dense:
        raise ConfigError(
            f"no {kind} schedule comes near {wanted / 1e6:.1f} M of the dense {costs.dense / 1e6:.1f} M MACs: "
            f"the nearest is {fitting[best] / 1e6:.1f} M; ask for that, or for another schedule"
        )
    return best


def _cost(schedule: Amounts, costs: Costs) -> int | None:
    try:
        return costs.backbone(schedule)
    except ConfigError:
        return None


def _maker(kind: str, shape: ModelShape) -> Callable[[float], Amounts]:
    """Return a function from the share of tokens that leave in all, 0..1, to a schedule."""
    depth, tokens = shape.depth, shape.patches
    name, _, number = kind.partition(":")
    if name in ("even", "early", "late") and not number:
        weights = {"even": [1] * depth, "early": range(depth, 0, -1), "late": range(1, depth + 1)}[name]
        return lambda share: _spread(list(weights), share * tokens)
    if name == "every" and number.isdecimal() and 0 < int(number) <= depth:
        chosen = [int(layer % int(number) == int(number) - 1) for layer in range(depth)]
        return lambda share: _spread(chosen, share * tokens)
    if name == "aligned" and number.isdecimal() and int(number):
        return lambda share: _aligned(shape, int(number), share * tokens)
    raise ConfigError(f"no schedule is called {kind!r}: choose one of {KINDS} (every:3, aligned:16)")


def _spread(weights: list[int], total: float) -> Amounts:
    """Divide ``total`` by weight, rounded so that the sums so far are as near as whole numbers go."""
    so_far = [sum(weights[:layer]) * total / sum(weights) for layer in range(len(weights) + 1)]
    return tuple(round(after) - round(before) for before, after in pairwise(so_far))


def _aligned(shape: ModelShape, multiple: int, total: float) -> Amounts:
    start = shape.patches + shape.num_prefix
    counts = [start]
    for layer in range(1, shape.depth + 1):
        even = start - total * layer / shape.depth
        counts.append(min(counts[-1], max(multiple, multiple * round(even / multiple))))
    return tuple(before - after for before, after in pairwise(counts)) if total else (0,) * shape.depth
