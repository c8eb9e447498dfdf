"""Kinds of schedules: from the total share of tokens to remove to the number of tokens to remove in each layer."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from gtp_models.errors import ConfigError
from gtp_models.methods.settings import ModelShape

KINDS = "even, early, late, every:K, steps:K, at:L,L, aligned:M"
Amounts = tuple[int, ...]


def maker(text: str, shape: ModelShape) -> Callable[[float], Amounts]:
    """Return a function from the total share of tokens to remove, 0..1, to a schedule.

    Raises:
        ConfigError: an unknown kind, or more steps than the model has different layers for.
    """
    kind, plus, aligned = text.partition("+")
    if kind.startswith("aligned:") and not plus:
        kind, aligned = "even", kind
    weights = _weights(kind, shape.depth)
    name, _, multiple = aligned.partition(":")
    if weights is None or (aligned and not (name == "aligned" and _positive(multiple))):
        raise ConfigError(
            f"no schedule is called {text!r}: choose one of {KINDS} (every:3, steps:2, at:1,5); "
            "+aligned or +aligned:16 after any of them rounds the tokens of each layer to multiples"
        )
    if not aligned:
        return lambda share: spread(weights, share * shape.patches)
    start = shape.patches + shape.num_prefix
    return lambda share: rounded(spread(weights, share * shape.patches), start, int(multiple))


def _weights(kind: str, depth: int) -> list[int] | None:
    """Return each layer's share of the removed tokens, as weights; None for an unknown kind."""
    name, _, rest = kind.partition(":")
    layers = range(depth)
    if name in ("even", "early", "late") and not rest:
        return {"even": [1] * depth, "early": list(range(depth, 0, -1)), "late": list(range(1, depth + 1))}[name]
    if name == "every" and _positive(rest) and int(rest) <= depth:
        return [int(layer % int(rest) == int(rest) - 1) for layer in layers]
    if name == "steps" and _positive(rest):
        most = 2 * depth // 3  # more would fall on the same layers
        if int(rest) > most:
            raise ConfigError(f"{kind}: a model of {depth} layers takes at most steps:{most}; every:1 reduces in all")
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


def spread(weights: Sequence[float], total: float) -> Amounts:
    """Divide ``total`` by weight, rounded so that the running sums are as close as whole numbers allow."""
    so_far = [sum(weights[:layer]) * total / sum(weights) for layer in range(len(weights) + 1)]
    return tuple(round(after) - round(before) for before, after in pairwise(so_far))


def rounded(amounts: Amounts, start: int, multiple: int) -> Amounts:
    """Round the tokens after each reduction to a multiple; ``start`` is their number before the first layer."""
    counts, wanted = [start], start
    for amount in amounts:
        wanted -= amount
        nearest = max(multiple, multiple * round(wanted / multiple))
        counts.append(min(counts[-1], nearest) if amount else counts[-1])
    return tuple(before - after for before, after in pairwise(counts))
