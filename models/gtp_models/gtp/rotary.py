"""Rotary position embeddings that follow the tokens: each is rotated by its original place, wherever it now stands.

Pairs of channels are held as two halves of a head: channel i goes with channel i + head_dim / 2. The other layout in
use, neighbours, becomes this one when the query's and the key's channels are sorted alike, which no product of
the two can tell.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gtp_models.gtp.tokens import Tokens


def rope_table(
    rope: Float[Tensor, "*layer_heads patches twice_dim"], num_prefix: int, neighbours: bool
) -> Float[Tensor, "*layer_heads places twice_dim"]:
    """Make the table that ``rope_rows`` picks from: a row a place, all cosines before all sines.

    Prefix tokens have no position and are not rotated. Nor is a token that ``propagation="Mean"`` adds: it takes the
    row before the first patch, which is there without prefix tokens, too.

    Args:
        rope: timm's, the sines before the cosines; one for all layers, or one for each layer and head.
        num_prefix: prefix tokens in front.
        neighbours: whether pairs are neighbours (0, 1), (2, 3), … there; else halves.
    """
    sin, cos = rope.chunk(2, -1)
    if neighbours:
        sin, cos = halved(sin), halved(cos)
    first, second = sin.chunk(2, -1)
    sin = torch.cat([-first, second], -1)
    shape = (*rope.shape[:-2], max(num_prefix, 1), cos.shape[-1])
    still = torch.cat([cos.new_ones(shape), sin.new_zeros(shape)], -1)
    return torch.cat([still, torch.cat([cos, sin], -1)], -2)


def halved(values: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any dim"]:
    """Sort the last axis from neighbours to halves."""
    return torch.cat([values[..., ::2], values[..., 1::2]], -1)


def rope_rows(tokens: Tokens, layer: int) -> Float[Tensor, "*any tokens twice_dim"] | None:
    """Pick the rows of the tokens that are there, by their ids; None without rotary embeddings.

    Returns:
        (tokens, 2 * head_dim), where layers have tables of their own with an axis of heads before; for more than one
        image broadcastable to (B, heads, tokens, 2 * head_dim).
    """
    if tokens.rope is None:
        return None
    table = tokens.rope if tokens.rope.ndim == 2 else tokens.rope[layer]
    shift = int(not tokens.num_prefix)  # the row before the first patch
    if tokens.ids is None:
        return table[..., shift:, :]
    places = tokens.ids + shift if shift else tokens.ids
    rows = table.index_select(-2, places.flatten())
    if not tokens.axes:
        return rows
    rows = rows.view(*rows.shape[:-2], tokens.batch, -1, rows.shape[-1])
    return rows.unsqueeze(1) if rows.ndim == 3 else rows.transpose(0, 1)


def rotate(
    values: Float[Tensor, "*batch heads tokens dim"], rows: Float[Tensor, "*any tokens twice_dim"]
) -> Float[Tensor, "*batch heads tokens dim"]:
    """Rotate each pair of channels by the token's angle for it."""
    cos, sin = rows.chunk(2, -1)
    first, second = values.chunk(2, -1)
    return (values * cos + torch.cat([second, first], -1) * sin).to(values.dtype)
