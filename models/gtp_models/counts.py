"""How many tokens stand before each layer, and whether a schedule fits."""

from collections.abc import Sequence

from gtp_models.errors import ConfigError
from gtp_models.methods.settings import ModelShape, Settings


def token_counts(settings: Settings, shape: ModelShape, num_prop: Sequence[int]) -> list[int]:
    """Return how many tokens stand before each layer and after the last, prefix tokens included: depth + 1 numbers.

    Raises:
        ConfigError: more leave than there are.
    """
    counts = _walk(settings, shape, num_prop)
    layer = len(counts) - 1
    if layer < len(num_prop):
        raise ConfigError(
            f"num_prop={list(num_prop)} removes {num_prop[layer]} of the {counts[-1] - shape.num_prefix} image tokens "
            f"left in layer {layer} (of 0 to {shape.depth - 1}): {settings.name} takes at most "
            f"{_most(settings, shape, counts[-1])} there{_largest(settings, shape, num_prop)}"
        )
    return counts


def _walk(settings: Settings, shape: ModelShape, num_prop: Sequence[int]) -> list[int]:
    """Return the counts, only up to the first layer that has too few tokens."""
    counts = [shape.patches + shape.num_prefix]
    for amount in num_prop:
        if amount > _most(settings, shape, counts[-1]):
            break
        counts.append(_after(settings, counts[-1], amount))
    return counts


def _most(settings: Settings, shape: ModelShape, tokens: int) -> int:
    """Return how many of ``tokens``, prefix tokens included, may leave."""
    return max(0, settings.most(tokens - shape.num_prefix, shape.num_prefix))


def _after(settings: Settings, tokens: int, amount: int) -> int:
    return tokens - amount + (settings.joins if amount else 0)


def _largest(settings: Settings, shape: ModelShape, num_prop: Sequence[int]) -> str:
    """Name the largest number that fits, if one number was given for all layers."""
    if len(set(num_prop)) > 1:
        return ""
    amount = next(amount for amount in range(num_prop[0] - 1, -1, -1) if _fits(settings, shape, amount))
    return f"; with one number for all layers at most {amount} fits"


def _fits(settings: Settings, shape: ModelShape, amount: int) -> bool:
    """Whether this number of tokens can leave in every layer; none always can."""
    return len(_walk(settings, shape, [amount] * shape.depth)) == shape.depth + 1
