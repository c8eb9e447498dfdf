"""How many tokens leave where: schedules that spend the same MACs differently over the layers."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

from gtp_models.errors import ConfigError
from gtp_models.gtp.config import GTPConfig
from gtp_models.macs import cost

KINDS = "even, early, late, every:K, aligned:M"
Schedule = tuple[int, ...]


def make_schedule(model: Any, config: GTPConfig, kind: str, budget: float, method: str = "gtp") -> GTPConfig:
    """Return the settings with the ``num_prop`` of a kind of schedule that comes closest to a budget of MACs.

    Args:
        model: what ``apply`` takes.
        config: the other settings.
        kind: "even" (as evenly as whole tokens go), "early" or "late" (linearly more in the first or last layers),
            "every:K" (in every K-th layer alone), "aligned:M" (even, and each layer has a multiple of M tokens, prefix
            tokens included, from its first reduction on).
        budget: MACs of the backbone for one image; up to 1, a share of the dense model's.
        method: whose tokens are counted (see ``apply_method``).

    Raises:
        ConfigError: an unknown kind, or a budget that no such schedule comes near (within 2 %).
    """
    shape = _shape(kind, len(model.blocks), model.patch_embed.num_patches, model.num_prefix_tokens)
    dense = cost(model, replace(config, num_prop=0), method).dense
    wanted = budget * dense if budget <= 1 else budget

    def miss(schedule: Schedule) -> float:
        return abs(cost(model, replace(config, num_prop=schedule), method).backbone - wanted)

    fitting = [schedule for schedule in _candidates(shape) if _fits(schedule, config, model)]
    best = min(fitting, key=miss)
    if miss(best) > 0.02 * dense:
        reached = cost(model, replace(config, num_prop=best), method).backbone
        raise ConfigError(
            f"no {kind} schedule comes near {wanted / 1e6:.1f} M of the dense {dense / 1e6:.1f} M MACs: "
            f"the nearest is {reached / 1e6:.1f} M; ask for that, or for another schedule"
        )
    return replace(config, num_prop=best)


def _candidates(shape: Callable[[float], Schedule]) -> list[Schedule]:
    """Schedules of a shape from none to all tokens, each once."""
    return list(dict.fromkeys(shape(share / 2000) for share in range(2001)))


def _fits(schedule: Schedule, config: GTPConfig, model: Any) -> bool:
    try:
        replace(config, num_prop=schedule).counts(len(schedule), model.patch_embed.num_patches)
    except ConfigError:
        return False
    return True


def _shape(kind: str, depth: int, tokens: int, prefix: int) -> Callable[[float], Schedule]:
    """Return a function from the share of tokens that leave in all, 0..1, to a schedule."""
    name, _, number = kind.partition(":")
    if name in ("even", "early", "late") and not number:
        weights = {"even": [1] * depth, "early": range(depth, 0, -1), "late": range(1, depth + 1)}[name]
        return lambda share: _spread(list(weights), share * tokens)
    if name == "every" and number.isdecimal() and 0 < int(number) <= depth:
        chosen = [int(layer % int(number) == int(number) - 1) for layer in range(depth)]
        return lambda share: _spread(chosen, share * tokens)
    if name == "aligned" and number.isdecimal() and int(number):
        return lambda share: _aligned(depth, tokens, prefix, int(number), share * tokens)
    raise ConfigError(f"no schedule is called {kind!r}: choose one of {KINDS} (every:3, aligned:16)")


def _spread(weights: list[int], total: float) -> Schedule:
    """Divide ``total`` by weight, rounded so that the sums so far are as near as whole numbers go."""
    so_far = [sum(weights[:layer]) * total / sum(weights) for layer in range(len(weights) + 1)]
    return tuple(round(after) - round(before) for before, after in pairwise(so_far))


def _aligned(depth: int, tokens: int, prefix: int, multiple: int, total: float) -> Schedule:
    counts = [tokens + prefix]
    for layer in range(1, depth + 1):
        even = tokens + prefix - total * layer / depth
        counts.append(min(counts[-1], max(multiple, multiple * round(even / multiple))))
    return tuple(before - after for before, after in pairwise(counts)) if total else (0,) * depth
