"""Token propagation (arXiv 2311.03035, section 3.3): what the leaving tokens leave behind."""

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from gtp_models.gtp.graph import add_product, edges
from gtp_models.gtp.tokens import Tokens, take, take_ids, take_last


def propagate(tokens: Tokens, order: Int[Tensor, "*batch tokens"], amount: int, kind: str) -> tuple[Tokens, Tensor]:
    """Let the last ``amount`` tokens of ``order`` leave.

    Args:
        tokens: the tokens of every image.
        order: their positions, those that stay first.
        amount: how many leave, at least 1.
        kind: one of ``GTPConfig.propagation``.

    Returns:
        The tokens that stay, and the ids (*batch, amount) of those that left.
    """
    staying, leaving = torch.split(order, [tokens.count - amount, amount], dim=-1)
    kept, left = _pick(tokens, staying), _pick(tokens, leaving)
    assert kept.ids is not None and left.ids is not None
    if kind == "GraphProp":
        return _along_graph(kept, left), left.ids
    return (_with_mean(kept, left) if kind == "Mean" else kept), left.ids


def _pick(tokens: Tokens, positions: Tensor) -> Tokens:
    return replace(
        tokens,
        x=take(tokens.x, positions, tokens.count),
        ids=positions if tokens.ids is None else take_ids(tokens.ids, positions),
        scale=None if tokens.scale is None else take_last(tokens.scale, positions),
    )


def _along_graph(kept: Tokens, left: Tokens) -> Tokens:
    assert kept.graph is not None and kept.ids is not None and left.ids is not None
    weights = edges(kept.graph, left.ids, kept.ids)
    scale = kept.scale
    if kept.scale is not None and left.scale is not None:
        scale = add_product(kept.scale, left.scale, weights)
    received = weights.mT
    rows = (*kept.axes, -1, kept.x.shape[-1])
    x = add_product(kept.x.view(rows), received, left.x.view(rows)).reshape(kept.x.shape)
    return replace(kept, x=x, scale=scale)


def _with_mean(kept: Tokens, left: Tokens) -> Tokens:
    """The leaving tokens' mean joins as one token with their mean scale; its original id is -1.

    It has no place, so a rotary embedding leaves it as it is (``rotary.rope_table``).
    """
    assert kept.ids is not None
    rows = (*kept.axes, -1, kept.x.shape[-1])
    x = torch.cat([kept.x.view(rows), left.x.view(rows).mean(-2, keepdim=True)], dim=-2)
    ids = torch.nn.functional.pad(kept.ids, (0, 1), value=kept.num_prefix - 1)
    scale = kept.scale
    if scale is not None and left.scale is not None:
        scale = torch.cat([scale, left.scale.mean(-1, keepdim=True)], dim=-1)
    return replace(kept, x=x.reshape(-1, kept.x.shape[-1]), ids=ids, scale=scale)
