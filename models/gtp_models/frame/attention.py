"""timm's attention, restated so that it returns its attention map, with rotary embeddings that follow the tokens.

Each token is rotated by its original position. Pairs of channels are the two halves of a head: channel i goes with
channel i + head_dim / 2. The other common layout, neighbouring channels, is converted by sorting the channels of query
and key in the same way. Their products do not change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gtp_models.frame.families import attention_form
from gtp_models.frame.families.forms import Linear
from gtp_models.frame.tokens import Tokens

AttentionMap = Float[Tensor, "*batch heads queries tokens"]
Rows = tuple[Float[Tensor, "*any tokens _ head_dim"], Float[Tensor, "*any tokens _ head_dim"]]  # cosines and sines
Threshold = Callable[[Tensor, Tensor], Tensor | None]  # (logits, attention map) to the least entries that stay


@dataclass(frozen=True)
class AttentionOutput:
    """The results of attention.

    Attributes:
        out: its output, the images concatenated along the rows.
        map: the attention map, after the sparsity threshold; only its first row if that was requested.
        key: each head's keys, before any rotary embedding.
    """

    out: Float[Tensor, "rows dim"]
    map: Float[Tensor, "*batch heads queries tokens"]
    key: Float[Tensor, "*batch key_heads tokens head_dim"]


def attend(
    attn: Any,
    x: Float[Tensor, "rows dim"],
    tokens: Tokens,
    threshold: Threshold | None = None,
    rope: Rows | None = None,
    first_row: bool = False,
) -> AttentionOutput:
    """Run timm's attention on normalised tokens.

    Modifications:
    - the logarithm of ``tokens.scale`` is added for the keys (arXiv 2311.03035, section 3.3)
    - the map is sparsified before it is used, and returned
    - query, key and value are three products, the query's with the softmax scale folded in

    Args:
        attn: timm's module, of a class that a family has a form for.
        x: ``norm1(tokens.x)``, if the block normalises first.
        tokens: for the number of images and the scales.
        threshold: which entries of the map stay (default: all).
        rope: the tokens' rotary embeddings (``rotary.rope_rows``), in models that have them.
        first_row: return only the first row of the map, computed separately. Runtimes can fuse attention only if
            nothing else reads its map.
    """
    sort = rope is not None and not attn.rotate_half
    query, key, value = queries_keys_values(attn, x, (*tokens.axes, -1), sort)
    rotated = (query, key) if rope is None else (rotate(query, rope), rotate(key, rope))
    queries, keys = _by_head(rotated[0]), _by_head(rotated[1])
    logits = _logits(queries, keys, tokens)
    attention = logits.softmax(-1)
    if threshold is not None:
        attention = sparsify(attention, threshold(logits, attention))
    mixed = _shared(attn.attn_drop(attention), _by_head(value))
    out = attn.norm(mixed.transpose(-3, -2).reshape(len(x), -1))
    if attn.gate is not None:
        out = out * attn.gate(x).sigmoid()
    attention_map = _logits(queries[..., :1, :], keys, tokens).softmax(-1) if first_row else attention
    return AttentionOutput(attn.proj_drop(attn.proj(out)), attention_map, _by_head(key))


def sparsify(attention: AttentionMap, least: Float[Tensor, "*batch heads 1 1"] | None) -> AttentionMap:
    """Set the entries below ``least`` to zero; no renormalisation.

    It multiplies by 0 or 1: selecting entry by entry (Where) takes ONNX Runtime several times as long.
    """
    return attention if least is None else attention * (attention >= least).to(attention.dtype)


def _logits(queries: Tensor, keys: Tensor, tokens: Tokens) -> Tensor:
    logits = _shared(queries, keys.mT)
    return logits if tokens.scale is None else logits + _per_head(tokens.scale.log())


def queries_keys_values(
    attn: Any, x: Float[Tensor, "rows dim"], rows: tuple[int, ...], sort: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Project to (*batch, tokens, heads, head_dim) each; ``rows`` is (*batch, -1).

    Keys and values may have fewer heads than queries. ``sort`` brings the channels of queries and keys from
    neighbours to halves (see ``rotary``).
    """
    normed = not isinstance(attn.q_norm, nn.Identity)
    linears = attention_form(attn)(attn)
    query, key, value = (
        F.linear(x, weight, bias).view(*rows, len(weight) // attn.head_dim, attn.head_dim)
        for weight, bias in (linears if normed else _folded(attn, linears, sort))
    )
    if not normed:
        return query, key, value
    query, key = attn.q_norm(query) * attn.scale, attn.k_norm(key)
    return (halved(query), halved(key), value) if sort else (query, key, value)


def _folded(attn: Any, linears: tuple[Linear, Linear, Linear], sort: bool) -> tuple[Linear, Linear, Linear]:
    """Scale the query and sort channels in the weights, at no cost in the graph."""
    query, key, value = linears
    query = _each(query, lambda part: part * attn.scale)
    if not sort:
        return query, key, value
    query, key = (_each(linear, lambda part: _sorted_rows(part, attn.head_dim)) for linear in (query, key))
    return query, key, value


def _each(linear: Linear, change: Callable[[Tensor], Tensor]) -> Linear:
    weight, bias = linear
    return change(weight), None if bias is None else change(bias)


def _sorted_rows(values: Tensor, head_dim: int) -> Tensor:
    pairs = values.view(-1, head_dim // 2, 2, *values.shape[1:])
    return pairs.transpose(1, 2).reshape(values.shape)


def _by_head(values: Tensor) -> Tensor:
    return values.transpose(-3, -2)


def _shared(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right``, where several heads of the left may share one of the right (grouped-query attention)."""
    if left.shape[-3] == right.shape[-3]:
        return left @ right
    grouped = left.reshape(*right.shape[:-2], -1, left.shape[-1])
    return (grouped @ right).view(*left.shape[:-1], right.shape[-1])


def _per_head(scale: Tensor) -> Tensor:
    """(*batch, 1, tokens) to (*batch, 1, 1, tokens); one image needs no axis to broadcast."""
    return scale if scale.ndim == 2 else torch.unsqueeze(scale, 1)


def rope_table(
    rope: Float[Tensor, "*layer_heads patches twice_dim"], num_prefix: int, neighbours: bool
) -> Float[Tensor, "2 *layer places heads head_dim"]:
    """Make the table that ``rope_rows`` picks from: cosines and sines, one row for each position.

    Prefix tokens have no position and are not rotated. Nor is a token that a method adds: it uses the
    row before the first patch, which exists without prefix tokens as well.

    Args:
        rope: timm's, the sines before the cosines; one for all layers, or one for each layer and head.
        num_prefix: prefix tokens in front.
        neighbours: whether pairs are neighbours (0, 1), (2, 3), … there; else halves.

    Returns:
        Tables for all layers or for each; with a single head if all heads are rotated in the same way.
    """
    rope = rope[:, None] if rope.ndim == 2 else rope.transpose(1, 2)
    half = rope.shape[-1] // 2
    sin, cos = rope[..., :half], rope[..., half:]
    if neighbours:
        sin, cos = halved(sin), halved(cos)
    sin = torch.cat([-sin[..., : half // 2], sin[..., half // 2 :]], -1)
    shape = (*cos.shape[:-3], max(num_prefix, 1), *cos.shape[-2:])
    return torch.stack([torch.cat([cos.new_ones(shape), cos], -3), torch.cat([sin.new_zeros(shape), sin], -3)])


def halved(values: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any dim"]:
    """Sort the last axis from neighbours to halves."""
    return torch.cat([values[..., ::2], values[..., 1::2]], -1)


def rope_rows(tokens: Tokens, layer: int) -> Rows | None:
    """Pick the rows of the present tokens by their ids; None without rotary embeddings."""
    if tokens.rope is None:
        return None
    cos, sin = tokens.rope if tokens.rope.ndim == 4 else tokens.rope[:, layer]
    return _rows(cos, tokens), _rows(sin, tokens)


def _rows(table: Tensor, tokens: Tokens) -> Tensor:
    shift = int(not tokens.num_prefix)  # the row before the first patch
    if tokens.ids is None:
        return table[shift:]
    places = tokens.ids + shift if shift else tokens.ids
    return table.index_select(0, places.flatten()).view(*places.shape, *table.shape[1:])


def rotate(values: Float[Tensor, "*batch tokens heads dim"], rows: Rows) -> Float[Tensor, "*batch tokens heads dim"]:
    """Rotate each pair of channels by the token's angle for it."""
    first, second = values.chunk(2, -1)
    return (values * rows[0] + torch.cat([second, first], -1) * rows[1]).to(values.dtype)
