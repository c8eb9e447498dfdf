"""What attention-based selections share: the map's statistics for each head, and how heads are reduced."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from gtp_models.frame.attention import AttentionMap

HeadScores = Float[Tensor, "*batch heads tokens"]
Reduce = Callable[[Tensor], Tensor]


def received_attention(attention: AttentionMap) -> HeadScores:
    """What all tokens together give to each token: the column sums."""
    return attention.sum(-2)


def self_attention(attention: AttentionMap) -> HeadScores:
    """What each token gives to itself: the diagonal, every (N + 1)-th entry of the flattened map."""
    return attention.flatten(-2)[..., :: attention.shape[-1] + 1]


def mean_heads(values: Tensor) -> Tensor:
    """Reduce the second last axis, the heads, by their mean."""
    return values.mean(-2)


def max_heads(values: Tensor) -> Tensor:
    """Reduce the second last axis, the heads, by their maximum."""
    return values.amax(-2)


REDUCTIONS: dict[str, Reduce] = {"Mean": mean_heads, "Max": max_heads}  # by the ending of a selection's name
