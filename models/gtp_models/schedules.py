"""Schedules: the number of tokens to remove in each layer, for a given MACs budget."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

from gtp_models.errors import ConfigError
from gtp_models.methods.settings import ModelShape, Settings

KINDS = "even, early, late, every:K, steps:K, at:L,L, aligned:M"
NEAR = 0.02  # of the dense model's MACs: how far a schedule may be from its budget
STEPS = 2000  # candidates between no and all tokens
Amounts = tuple[int, ...]


class Costs(Protocol):
    """The MACs of schedules."""

    dense: int

    def backbone(self, num_prop: Sequence[int]) -> int:
        """Return the MACs of a schedule, or raise ``ConfigError`` where it does not fit."""
        ...


def resolve(settings: Settings, shape: ModelShape, costs: Costs) -> Amounts:
    """Return the number of tokens to remove in each layer.

    ``schedule`` is "even" (as evenly as whole tokens allow), "early" or "late" (linearly more in the first or last
    layers), "every:K" (only in every K-th layer), "steps:K" (in K layers, spread over the first two thirds), or
    "at:1,5" (only in these layers). "aligned:M", alone or after another ("steps:2+aligned:16"), rounds the tokens of
    each layer, prefix tokens included, to a multiple of M from the first reduction on. Its budget is ``macs``,
    ``keep``, or what ``num_prop`` takes.

    Raises:
        ConfigError: another number of layers, an unknown schedule, or a budget that no such schedule can meet.
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


def _maker(text: str, shape: ModelShape) -> Callable[[float], Amounts]:
    """Return a function from the total share of tokens that leave, 0..1, to a schedule."""
    kind, plus, aligned = text.partition("+")
    if kind.startswith("aligned:") and not plus:
        kind, aligned = "even", kind
    weights = _weights(kind, shape.depth)
    name, _, multiple = aligned.partition(":")
    if weights is None or (aligned and not (name == "aligned" and _positive(multiple))):
        raise ConfigError(
            f"no schedule is called {text!r}: choose one of {KINDS} (every:3, steps:2, at:1,5); "
            "+aligned:16 after any of them rounds the tokens of each layer to multiples"
        )
    if not aligned:
        return lambda share: _spread(weights, share * shape.patches)
    start = shape.patches + shape.num_prefix
    return lambda share: _aligned(_spread(weights, share * shape.patches), start, int(multiple))


def _weights(kind: str, depth: int) -> list[int] | None:
    """Return the share of the leaving tokens for each layer, as weights; None for an unknown kind."""
    name, _, rest = kind.partition(":")
    layers = range(depth)
    if name in ("even", "early", "late") and not rest:
        return {"even": [1] * depth, "early": list(range(depth, 0, -1)), "late": list(range(1, depth + 1))}[name]
    if name == "every" and _positive(rest) and int(rest) <= depth:
        return [int(layer % int(rest) == int(rest) - 1) for layer in layers]
    if name == "steps" and _positive(rest) and int(rest) < depth:
        chosen = steps(int(rest), depth)
        return [int(layer in chosen) for layer in layers]
    if name == "at" and all(part.isdecimal() and int(part) < depth for part in rest.split(",")):
        chosen = [int(part) for part in rest.split(",")]
        return [int(layer in chosen) for layer in layers]
    return None


def steps(count: int, depth: int) -> list[int]:
    """Return the layers of ``steps:K``: from layer 1 on, spread over the first two thirds."""
    return [1 + int(step * 2 * depth / (3 * count)) for step in range(count)]


def _positive(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def _spread(weights: list[int], total: float) -> Amounts:
    """Divide ``total`` by weight, rounded so that the running sums are as close as whole numbers allow."""
    so_far = [sum(weights[:layer]) * total / sum(weights) for layer in range(len(weights) + 1)]
    return tuple(round(after) - round(before) for before, after in pairwise(so_far))


def _aligned(amounts: Amounts, start: int, multiple: int) -> Amounts:
    """Round the tokens after each reduction to a multiple."""
    counts, wanted = [start], start
    for amount in amounts:
        wanted -= amount
        rounded = max(multiple, multiple * round(wanted / multiple))
        counts.append(min(counts[-1], rounded) if amount else counts[-1])
    return tuple(before - after for before, after in pairwise(counts))
