"""Rotary position embeddings that follow the tokens: each is rotated by its original position.

Pairs of channels are the two halves of a head: channel i goes with channel i + head_dim / 2. The other common layout,
neighbouring channels, is converted by sorting the channels of query and key in the same way. Their products do not
change.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gtp_models.frame.tokens import Tokens

Rows = tuple[Float[Tensor, "*any tokens _ head_dim"], Float[Tensor, "*any tokens _ head_dim"]]  # cosines and sines


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
