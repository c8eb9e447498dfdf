"""Token selection (arXiv 2311.03035, section 3.2): which tokens stay, from the attention map.

Scores cover all tokens; ``rank`` then keeps the prefix tokens in front.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

AttentionMap = Float[Tensor, "*batch heads _ tokens"]
Scores = Float[Tensor, "*batch tokens"]
HeadScores = Float[Tensor, "*batch heads tokens"]
Reduce = Callable[[Tensor], Tensor]

_HIGHEST = 60000.0  # fits float16


def class_attention(attention: AttentionMap) -> HeadScores:
    """What the first token (the class token) gives to each token."""
    return attention[..., 0, :]


def received_attention(attention: AttentionMap) -> HeadScores:
    """What all tokens together give to each token: the column sums."""
    return attention.sum(-2)


def self_attention(attention: AttentionMap) -> HeadScores:
    """What each token gives to itself: the diagonal, every (N + 1)-th entry of the flattened map."""
    return attention.flatten(-2)[..., :: attention.shape[-1] + 1]


def cosine_dissimilarity(attention: AttentionMap, reduce: Reduce, num_prefix: int) -> Scores:
    """Minus the summed cosine similarity of a token's attention row to those of all image tokens."""
    rows = reduce(attention.movedim(-3, -2))
    unit = rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    total = unit[..., num_prefix:, :].sum(-2)
    return -(unit @ total[..., None])[..., 0]


def mean_heads(values: Tensor) -> Tensor:
    """Reduce the second last axis, the heads, by their mean."""
    return values.mean(-2)


def max_heads(values: Tensor) -> Tensor:
    """Reduce the second last axis, the heads, by their maximum."""
    return values.amax(-2)


def scores(attention: AttentionMap, selection: str, num_prefix: int) -> Scores:
    """Score every token by the named selection; higher stays.

    Args:
        attention: the attention map, after the sparsity threshold.
        selection: one of ``GTPConfig.selection``.
        num_prefix: prefix tokens in front.
    """
    kind, reduce = selection.removesuffix("Mean").removesuffix("Max"), mean_heads
    if selection.endswith("Max"):
        reduce = max_heads
    if kind == "CLSAttn":
        return reduce(class_attention(attention))
    if kind == "CosSim":
        return cosine_dissimilarity(attention, reduce, num_prefix)
    if kind == "IMGAttn":
        return reduce(received_attention(attention))
    diagonal = reduce(self_attention(attention))
    if kind == "DiagAttn":
        return diagonal
    received = reduce(received_attention(attention))
    return diagonal * received if kind == "MixedAttn" else diagonal + received


def rank(values: Scores, num_prefix: int) -> tuple[Scores, Int[Tensor, "*batch tokens"]]:
    """Sort tokens by descending score, prefix tokens first; a tie keeps the current order.

    Returns:
        The sorted scores and the current positions in that order.
    """
    if num_prefix:
        front = [_HIGHEST * (num_prefix - i) / num_prefix for i in range(num_prefix)]
        bonus = front + [0.0] * (values.shape[-1] - num_prefix)
        values = values + torch.tensor(bonus, dtype=values.dtype, device=values.device)
    ordered = values.sort(dim=-1, descending=True, stable=True)
    return ordered.values, ordered.indices
