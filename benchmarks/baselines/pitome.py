"""PiToMe, "Accelerating Transformers with Spectrum-Preserving Token Merging" (arXiv 2405.16148), from its description.

A token's energy is the mean over all others of f(cosine of the keys): f(x) = x from the margin m on, and
exp(x - m) - 1 below. High energy says that many tokens are alike. The 2r tokens of the highest energy may merge, the
others are protected. In the order of their energy they go to two sets in turn, and each of the first set merges into
the most similar one of the second. m falls linearly with the layers from 0.9 to 0.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from baselines.merging import merge, unit
from gtp_models import METHODS, Settings
from gtp_models.frame.attention import AttentionOutput
from gtp_models.frame.blocks import ReducingBlocks
from gtp_models.frame.tokens import Tokens
from gtp_models.frame.trace import Layer
from gtp_models.methods import Method
from gtp_models.methods.settings import LayerShape

MARGIN = 0.9


@dataclass(frozen=True)
class PiToMeSettings(Settings):
    """How many tokens merge where: r of the paper is ``num_prop``, at most half of a layer's image tokens."""

    name: ClassVar[str] = "pitome"
    summary: ClassVar[str] = "token merging that protects distinct tokens (baseline: PiToMe, arXiv 2405.16148)"

    def most(self, tokens: int, num_prefix: int) -> int:  # noqa: ARG002
        return tokens // 2

    def layer_macs(self, layer: LayerShape) -> int:
        return (layer.tokens - layer.model.num_prefix) ** 2 * layer.model.head_dim


class PiToMeBlocks(ReducingBlocks):
    """Modifications: tokens of high energy merge, with proportional attention."""

    merges = True
    layer = 0

    def run_block(self, index: int, tokens: Tokens) -> Layer:
        self.layer = index
        return super().run_block(index, tokens)

    def reduce(self, tokens: Tokens, attention: AttentionOutput, amount: int) -> Layer:
        keys = attention.key.mean(-3).reshape(tokens.batch, tokens.count, -1)
        margin = MARGIN * (1 - self.layer / len(self))
        return merge(tokens, match(keys, tokens.num_prefix, amount, margin))


def energy(cosine: Tensor, margin: float) -> Tensor:
    """Return the energy (B, N) of tokens from the cosines (B, N, N) of their keys."""
    felt = torch.where(cosine >= margin, cosine, (cosine - margin).exp() - 1)
    return (felt.sum(-1) - felt.diagonal(dim1=-2, dim2=-1)) / cosine.shape[-1]


def match(keys: Tensor, num_prefix: int, amount: int, margin: float) -> Tensor:
    """Return where each token goes, as ``merge`` takes it: (B, tokens); keys are (B, tokens, dim)."""
    batch, count, _ = keys.shape
    vectors = unit(keys[:, num_prefix:])
    cosine = vectors @ vectors.mT
    order = energy(cosine, margin).sort(dim=-1, descending=True, stable=True).indices
    first, second = order[:, 0 : 2 * amount : 2], order[:, 1 : 2 * amount : 2]
    between = cosine.gather(1, first[..., None].expand(-1, -1, cosine.shape[-1]))
    between = between.gather(2, second[:, None].expand(-1, amount, -1))
    receivers = second.gather(1, between.argmax(-1))
    into = torch.arange(count, device=keys.device).repeat(batch, 1)
    return into.scatter_(1, first + num_prefix, receivers + num_prefix)


METHODS.add(Method(PiToMeSettings, lambda blocks, plan: PiToMeBlocks(blocks, plan.num_prop, plan.shape.num_prefix)))
