"""Attention sparsification (arXiv 2311.03035, section 3.4): small entries of the map become zero.

The published threshold is exact: the k-th smallest entry of each image's map. Finding it sorts N x N entries for each
head, which is slow on edge runtimes and not possible in TensorRT. The calibrated one is ``exp(mean + z * std)`` of the
image's own log-attention, with a z for each layer and head that was measured on calibration images.
"""

from jaxtyping import Float
from torch import Tensor

from gtp_models.frame.attention import AttentionMap

HeadValue = Float[Tensor, "*batch heads 1 1"]


def dropped_entries(tokens: int, sparsity: float) -> int:
    """Return k: the k-th smallest entry of an N x N map is the smallest that stays; 0 keeps all."""
    return int(tokens * tokens * (1 - sparsity))


def topk_size(tokens: int, sparsity: float) -> int:
    """Return the size of the TopK that finds the threshold, from the nearer end."""
    k = dropped_entries(tokens, sparsity)
    return min(k, tokens * tokens - k + 1) if k else 0


def exact_threshold(attention: AttentionMap, sparsity: float) -> HeadValue | None:
    """Return each head's k-th smallest entry, or None where nothing is dropped."""
    tokens = attention.shape[-1]
    k = dropped_entries(tokens, sparsity)
    if not k:
        return None
    size = topk_size(tokens, sparsity)
    extreme = attention.flatten(-2).topk(size, dim=-1, largest=size < k).values
    return extreme[..., -1:, None]


def log_statistics(logits: AttentionMap, attention: AttentionMap) -> tuple[HeadValue, HeadValue]:
    """Return mean and standard deviation of each head's log-attention, without the logarithm of every entry.

    log A = logits - normaliser of the row, and the normaliser follows from the row's largest entries; so four
    reductions of the maps are enough, and the rest is one value for each row.
    """
    normaliser = logits.amax(-1, keepdim=True) - attention.amax(-1, keepdim=True).log()
    row_mean = logits.mean(-1, keepdim=True)
    mean = (row_mean - normaliser).mean(-2, keepdim=True)
    square = (logits * logits).mean((-1, -2), keepdim=True)
    square = square + ((normaliser - 2 * row_mean) * normaliser).mean(-2, keepdim=True)
    return mean, (square - mean * mean).clamp(min=0).sqrt()


def calibrated_threshold(logits: AttentionMap, attention: AttentionMap, z: Float[Tensor, "heads 1 1"]) -> HeadValue:
    """Return ``exp(mean + z * std)`` of each head's log-attention."""
    mean, std = log_statistics(logits, attention)
    return (mean + z * std).exp()
