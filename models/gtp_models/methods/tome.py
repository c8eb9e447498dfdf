"""Token merging, ToMe (Bolya et al., arXiv 2210.09461), in a form that exports to standard operators.

Written from the paper: tokens alternate between two sets, each token of the first proposes its most
similar token of the second by the mean of the heads' keys, and the r most similar pairs merge by their weighted mean.
A sum into chosen rows is a product with a one-hot matrix here, where other code scatters.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gtp_models.frame.attention import AttentionOutput
from gtp_models.frame.blocks import ReducingBlocks
from gtp_models.frame.tokens import NEVER, Tokens, add_product, rank, take, take_ids, take_last
from gtp_models.frame.trace import Layer
from gtp_models.methods import METHODS, Method
from gtp_models.methods.settings import LayerShape, Settings


@dataclass(frozen=True)
class ToMeSettings(Settings):
    """Settings of ToMe: ``num_prop`` is r in the paper, at most half of a layer's tokens."""

    name: ClassVar[str] = "tome"
    summary: ClassVar[str] = "token merging (baseline: ToMe, arXiv 2210.09461)"

    @property
    def merges(self) -> bool:
        return True

    def most(self, tokens: int, num_prefix: int) -> int:
        return most(tokens, num_prefix)

    def topk(self, layer: LayerShape) -> int:
        return (layer.tokens + 1) // 2

    def layer_macs(self, layer: LayerShape) -> int:
        first, second = (layer.tokens + 1) // 2, layer.tokens // 2
        return first * second * layer.model.head_dim + second * layer.num_prop * (layer.model.dim + 1)


class ToMeBlocks(ReducingBlocks):
    """Modifications: similar tokens merge (arXiv 2210.09461, section 3), with proportional attention: a token that
    stands for s patches counts s times as a key.

    With rotary embeddings a merged token keeps the position of the token that the others were merged into. Similarity
    is that of the keys before they are rotated: by content, not by position.
    """

    merges = True
    one_receiver = True

    def reduce(self, tokens: Tokens, attention: AttentionOutput, amount: int) -> Layer:
        tokens = replace(tokens.scaled(), ids=tokens.ids if tokens.ids is not None else tokens.positions())
        similarity, partner = match(attention.key.mean(-3), tokens.num_prefix)
        evens = (tokens.num_prefix + 1) // 2
        order = rank(-similarity, evens)[1]
        first = similarity.shape[-1]
        leaving = order[..., first - amount :]
        staying = order[..., : first - amount].sort(stable=True).values  # the original order
        receivers = take_ids(partner, leaving)
        merged = _merge(tokens, 2 * staying, 2 * leaving, receivers)
        assert tokens.ids is not None
        left = take_ids(tokens.ids, 2 * leaving)
        gap = left.new_zeros(tokens.axes).to(tokens.x.dtype)
        return Layer(_prefix_first(merged, evens, first - amount), left, gap, take_ids(tokens.ids, 2 * receivers + 1))


def most(tokens: int, num_prefix: int) -> int:
    """Return how many of a layer's image tokens can merge: those of the first set."""
    return (tokens + num_prefix + 1) // 2 - (num_prefix + 1) // 2


def match(
    metric: Float[Tensor, "*batch tokens dim"], num_prefix: int
) -> tuple[Float[Tensor, "*batch evens"], Int[Tensor, "*batch evens"]]:
    """Return the similarity and number of each even token's most similar odd token; prefix tokens have no match."""
    unit = metric / metric.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    cosine = unit[..., ::2, :] @ unit[..., 1::2, :].mT
    barred = torch.zeros(cosine.shape[-2:])
    barred[: (num_prefix + 1) // 2] = NEVER
    barred[:, : num_prefix // 2] = NEVER
    best = (cosine + barred.to(cosine)).max(-1)
    return best.values, best.indices


def _merge(tokens: Tokens, staying: Tensor, leaving: Tensor, receivers: Tensor) -> Tokens:
    """Add the leaving tokens to the odd tokens they chose, weighted by how many patches each stands for."""
    assert tokens.scale is not None
    assert tokens.ids is not None
    rows = (*tokens.axes, -1, tokens.x.shape[-1])
    odd_x, odd_scale = tokens.x.view(rows)[..., 1::2, :], tokens.scale[..., 1::2]
    left_x, left_scale = take(tokens.x, leaving, tokens.count).view(rows), take_last(tokens.scale, leaving)
    odds = torch.arange(odd_scale.shape[-1], device=tokens.x.device)
    one_hot = (odds[:, None] == receivers[..., None, :]).to(tokens.x.dtype)
    scale = odd_scale + left_scale @ one_hot.mT
    x = add_product(odd_x * odd_scale.mT, one_hot, left_x * left_scale.mT) / scale.mT
    odd_ids = tokens.ids[..., 1::2]
    if not staying.shape[-1]:  # a graph cannot hold empty tensors
        return replace(tokens, x=x.reshape(-1, rows[-1]), scale=scale, ids=odd_ids)
    kept_x = take(tokens.x, staying, tokens.count).view(rows)
    return replace(
        tokens,
        x=torch.cat([kept_x, x], -2).reshape(-1, rows[-1]),
        scale=torch.cat([take_last(tokens.scale, staying), scale], -1),
        ids=torch.cat([take_ids(tokens.ids, staying), odd_ids], -1),
    )


def _prefix_first(tokens: Tokens, evens: int, first: int) -> Tokens:
    """Put prefix tokens of odd places, which now follow the even tokens, back in front."""
    odds = tokens.num_prefix - evens
    if not odds:
        return tokens
    front = [place for pair in zip(range(evens), range(first, first + odds), strict=False) for place in pair]
    front += list(range(len(front) // 2, evens))
    rest = [place for place in range(tokens.count) if place not in front]
    order = torch.tensor(front + rest, device=tokens.x.device).expand(*tokens.axes, -1)
    assert tokens.ids is not None
    assert tokens.scale is not None
    return replace(
        tokens,
        x=take(tokens.x, order, tokens.count),
        ids=take_ids(tokens.ids, order),
        scale=take_last(tokens.scale, order),
    )


METHODS.add(Method(ToMeSettings, lambda blocks, plan: ToMeBlocks(blocks, plan.num_prop, plan.shape.num_prefix)))
