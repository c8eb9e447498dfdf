"""Attention sparsification (arXiv 2311.03035, section 3.4): small entries of the map become zero."""

from jaxtyping import Float
from torch import Tensor


def dropped_entries(tokens: int, sparsity: float) -> int:
    """Return k: the k-th smallest of an N x N map is the least that stays; 0 keeps all."""
    return int(tokens * tokens * (1 - sparsity))


def topk_size(tokens: int, sparsity: float) -> int:
    """Return the size of the TopK that finds the threshold: the shorter way round."""
    k = dropped_entries(tokens, sparsity)
    return min(k, tokens * tokens - k + 1) if k else 0


def threshold(
    attention: Float[Tensor, "*batch heads tokens tokens"], sparsity: float
) -> Float[Tensor, "*batch heads 1 1"] | None:
    """Return each head's k-th smallest entry, or None where nothing is dropped."""
    tokens = attention.shape[-1]
    k = dropped_entries(tokens, sparsity)
    if not k:
        return None
    size = topk_size(tokens, sparsity)
    extreme = attention.flatten(-2).topk(size, dim=-1, largest=size < k).values
    return extreme[..., -1:, None]


def sparsify(
    attention: Float[Tensor, "*batch heads tokens tokens"], sparsity: float
) -> Float[Tensor, "*batch heads tokens tokens"]:
    """Set the entries below the threshold to zero; no renormalisation.

    Args:
        attention: the attention map after softmax.
        sparsity: the share that stays, in (0, 1].
    """
    least = threshold(attention, sparsity)
    return attention if least is None else attention.masked_fill(attention < least, 0)
