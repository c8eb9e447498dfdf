"""What attention-based selections share: the map's statistics for each head, and how heads are reduced."""

from collections.abc import Callable
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gtp_models.frame.attention import AttentionMap
from gtp_models.methods.gtp.axes import SELECTIONS, Scores, Selection

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


def add_for_heads(name: str, summary: str, score: Callable[..., Scores], **others: Any) -> None:
    """Register a selection once for each way to reduce heads, as ``name`` with its ending.

    Args:
        name: without the ending.
        summary: one line for people.
        score: from what is seen and ``reduce`` to scores.
        others: further fields of ``Selection``.
    """
    for ending, reduce in REDUCTIONS.items():
        described = f"{summary}, {ending.lower()} over heads"
        SELECTIONS.add(Selection(f"{name}{ending}", described, partial(score, reduce=reduce), **others))
