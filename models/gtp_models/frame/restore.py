"""Puts tokens back on the grid: every patch takes the vector of the token that stands for it.

A merged patch is represented by the token that it was merged into, through all steps. Where tokens leave without a
single receiver (pruning, the paper's propagation) the nearest kept patch represents them. All shapes are static, and
nothing is scattered: the order of the tokens is inverted by a sort of their ids.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gtp_models.errors import ConfigError
from gtp_models.frame.tokens import Tokens, take, take_ids

Absent = Literal["nearest", "zero"]
LONGEST_SORT = 3840  # entries that TensorRT's TopK can sort; longer orders are inverted by comparing all pairs


@dataclass(frozen=True)
class Restore:
    """How a patched model's tokens are put back.

    Attributes:
        grid: (rows, columns) of patches.
        absent: what stands where a token left without a receiver: "nearest", the nearest kept patch on the grid (of
            equally near ones the first in the current order), or "zero", zeros.

    Raises:
        ConfigError: another ``absent``.
    """

    grid: tuple[int, int]
    absent: Absent = "nearest"

    def __post_init__(self) -> None:
        if self.absent not in get_args(Absent):
            raise ConfigError(f"restore={self.absent!r}: give True or {' or '.join(map(repr, get_args(Absent)))}")

    def __call__(self, tokens: Tokens) -> Float[Tensor, "batch all dim"]:
        """Return a vector for each place of the embedded sequence; at least one token has left."""
        if all(departed.receivers is not None for departed in tokens.departed):
            return _picked(tokens, represented_by(tokens))
        rows, is_kept = nearest_kept(tokens, self.grid)
        restored = _picked(tokens, rows)
        if self.absent == "nearest":
            return restored
        return restored * is_kept.reshape(tokens.batch, -1, 1).to(restored)


def _picked(tokens: Tokens, rows: Int[Tensor, "*batch all"]) -> Float[Tensor, "batch all dim"]:
    return take(tokens.x, rows, tokens.count).view(tokens.batch, -1, tokens.x.shape[-1])


def represented_by(tokens: Tokens) -> Int[Tensor, "*batch all"]:
    """Return for each place of the embedded sequence the row of the token that stands for it.

    From the last step to the first, a token that left takes the row of its receiver, which stood longer and is
    known by then.
    """
    ids = tokens.ids
    assert ids is not None
    last_first = tokens.departed[::-1]
    place = inverse(torch.cat([ids, *(departed.ids for departed in last_first)], -1))
    rows = torch.arange(tokens.count, device=ids.device).expand(ids.shape)
    for departed in last_first:
        assert departed.receivers is not None
        rows = torch.cat([rows, take_ids(rows, take_ids(place, departed.receivers))], -1)
    return take_ids(rows, place)


def inverse(order: Int[Tensor, "*batch all"]) -> Int[Tensor, "*batch all"]:
    """Return the inverse of a permutation: the place of each number."""
    if order.shape[-1] <= LONGEST_SORT:
        return order.int().sort(dim=-1, stable=True).indices
    numbers = torch.arange(order.shape[-1], device=order.device)
    return (numbers[:, None] == order[..., None, :]).float().argmax(-1)


def nearest_kept(
    tokens: Tokens, grid: tuple[int, int]
) -> tuple[Int[Tensor, "*batch all"], Float[Tensor, "*batch all"]]:
    """Return for each place the row of the nearest kept patch, and whether it is the place's own token.

    Prefix tokens are their own. A token that a method added has no place and represents no patch.
    """
    ids, prefix = tokens.ids, tokens.num_prefix
    assert ids is not None
    none = max(prefix, 1)  # the table's rows in front: what has no place on the grid, far away from it
    shift = none - prefix
    for_all = _coordinates(grid, tokens.x)
    table = torch.cat([for_all.new_full((none, 2), 3.0 * max(grid)), for_all])
    kept = table.index_select(0, (ids + shift).flatten()).view(*ids.shape, 2)
    apart = for_all[:, None] - kept[..., None, :, :]
    nearest = (apart * apart).sum(-1).min(-1)
    own = torch.arange(prefix, device=ids.device).expand(*tokens.axes, -1)
    is_kept = torch.cat([torch.ones_like(own, dtype=torch.bool), nearest.values == 0], -1)
    return torch.cat([own, nearest.indices], -1), is_kept


def _coordinates(grid: tuple[int, int], like: Tensor) -> Float[Tensor, "patches 2"]:
    rows, columns = (torch.arange(side, dtype=like.dtype, device=like.device) for side in grid)
    return torch.cartesian_prod(rows, columns)
