"""Merges tokens into others by their size-weighted mean; what the methods here share."""

from dataclasses import replace

import torch
from torch import Tensor

from gtp_models.frame.tokens import Tokens, take_ids
from gtp_models.frame.trace import Layer


def unit(values: Tensor) -> Tensor:
    """Return (..., dim) vectors with a length of 1."""
    return values / values.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def merge(tokens: Tokens, into: Tensor) -> Layer:
    """Merge tokens into others; those that stay keep their order.

    Args:
        tokens: with prefix tokens in front.
        into: (B, tokens) int64 positions: where each token goes; one that stays names its own. As many leave in every
            image, and nobody goes to a token that leaves.
    """
    tokens = replace(tokens.scaled(), ids=tokens.positions() if tokens.ids is None else tokens.ids)
    assert tokens.scale is not None
    assert tokens.ids is not None
    batch, count = into.shape
    sizes = tokens.scale.reshape(batch, count)
    weighted = tokens.x.view(batch, count, -1) * sizes[..., None]
    sums = torch.zeros_like(weighted).scatter_add_(1, into[..., None].expand_as(weighted), weighted)
    masses = torch.zeros_like(sizes).scatter_add_(1, into, sizes)
    stays = into == torch.arange(count, device=into.device)
    staying, leaving = (mask.nonzero()[:, 1].view(*tokens.axes, -1) for mask in (stays, ~stays))
    kept = replace(tokens, x=sums.flatten(0, 1), scale=masses.view_as(tokens.scale)).pick(staying)
    assert kept.scale is not None
    mean = replace(kept, x=kept.x / kept.scale.reshape(-1, 1))
    received = take_ids(into.view_as(tokens.ids), leaving)
    left, receivers = take_ids(tokens.ids, leaving), take_ids(tokens.ids, received)
    return Layer(mean, left, kept.x.new_zeros(tokens.axes), receivers)
