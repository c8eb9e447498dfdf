"""timm's attention, recomposed so that it hands out its map."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from timm.layers import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from gtp_models.gtp.sparsity import Threshold, sparsify
from gtp_models.gtp.tokens import Tokens


@dataclass(frozen=True)
class Attended:
    """What attention gives.

    Attributes:
        out: its output, the images one below the other.
        map: the attention map, after the sparsity threshold.
        key: each head's keys.
    """

    out: Float[Tensor, "rows dim"]
    map: Float[Tensor, "*batch heads tokens tokens"]
    key: Float[Tensor, "*batch heads tokens head_dim"]


def attend(
    attn: Attention, x: Float[Tensor, "rows dim"], tokens: Tokens, threshold: Threshold | None = None
) -> Attended:
    """Run timm's ``Attention`` on normalised tokens.

    Modifications:
    - the logarithm of ``tokens.scale`` is added for the keys (arXiv 2311.03035, section 3.3)
    - the map is sparsified before it is used, and handed out
    - query, key and value are three products, the query's with the softmax scale folded in

    Args:
        attn: timm's module.
        x: ``norm1(tokens.x)``.
        tokens: for the number of images and the scales.
        threshold: which entries of the map stay; all without.
    """
    query, key, value = queries_keys_values(attn, x, (*tokens.axes, -1))
    logits = query @ key.mT
    if tokens.scale is not None:
        logits = logits + _per_head(tokens.scale.log())
    attention = logits.softmax(-1)
    if threshold is not None:
        attention = sparsify(attention, threshold(logits, attention))
    mixed = attn.attn_drop(attention) @ value
    out = attn.norm(mixed.transpose(-3, -2).reshape(-1, attn.attn_dim))
    if attn.gate is not None:
        out = out * attn.gate(x).sigmoid()
    return Attended(attn.proj_drop(attn.proj(out)), attention, key)


def queries_keys_values(
    attn: Attention, x: Float[Tensor, "rows dim"], rows: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Project to (*batch, heads, tokens, head_dim) each; ``rows`` is (*batch, -1)."""
    folded = isinstance(attn.q_norm, nn.Identity)
    query, key, value = (
        _project(x, attn, part, attn.scale if folded and not part else 1.0)
        .view(*rows, attn.num_heads, attn.head_dim)
        .transpose(-3, -2)
        for part in range(3)
    )
    query, key = attn.q_norm(query), attn.k_norm(key)
    return query if folded else query * attn.scale, key, value


def _project(x: Tensor, attn: Attention, part: int, scale: float) -> Tensor:
    rows = slice(part * attn.attn_dim, (part + 1) * attn.attn_dim)
    weight, bias = attn.qkv.weight[rows], attn.qkv.bias
    bias = None if bias is None else bias[rows]
    if scale != 1:
        weight, bias = weight * scale, None if bias is None else bias * scale
    return F.linear(x, weight, bias)


def _per_head(scale: Tensor) -> Tensor:
    """(*batch, 1, tokens) to (*batch, 1, 1, tokens); one image needs no axis to broadcast."""
    return scale if scale.ndim == 2 else torch.unsqueeze(scale, 1)
