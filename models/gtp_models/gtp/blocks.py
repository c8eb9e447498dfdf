"""timm's transformer blocks, run one after the other with the token state between them."""

from collections import OrderedDict
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from gtp_models.gtp.attention import attend
from gtp_models.gtp.config import GTPConfig
from gtp_models.gtp.graph import token_graph, with_prefix
from gtp_models.gtp.propagation import propagate
from gtp_models.gtp.selection import rank, scores
from gtp_models.gtp.tokens import Tokens
from gtp_models.gtp.trace import Layer, record


class GTPBlocks(nn.Sequential):
    """A timm model's ``blocks``, patched: (B, tokens, dim) in, (B, fewer tokens, dim) out.

    Modifications:
    - holds the same blocks under the same names, so that state dicts do not change
    - builds the token graph from its input, once
    - blocks before the first layer that reduces run as timm has them; when exporting, all blocks run in
      the form that gives the leaner graph
    """

    def __init__(self, blocks: nn.Sequential, config: GTPConfig, grid: tuple[int, int], num_prefix: int) -> None:
        super().__init__(OrderedDict(blocks.named_children()))
        self.config = config
        self.grid = grid
        self.num_prefix = num_prefix
        config.counts(len(self), grid[0] * grid[1])

    @property
    def num_prop(self) -> tuple[int, ...]:
        """How many tokens leave in each layer."""
        return self.config.schedule(len(self))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):  # timm cuts models with blocks[:n]; a part is no whole to patch
            return nn.Sequential(OrderedDict(list(self.named_children())[index]))
        return super().__getitem__(index)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch fewer dim"]:
        batch, dim = x.shape[0], x.shape[-1]
        layers: list[Layer] = []
        graph = self._graph(x)
        plain = self._plain_blocks()
        for index in range(plain):
            x = self[index](x)
            layers.append(Layer(Tokens(x.flatten(0, 1), batch, self.num_prefix)))
        tokens = Tokens(x.reshape(-1, dim), batch, self.num_prefix, graph=graph)
        for index in range(plain, len(self)):
            layers.append(run_block(self[index], tokens, self.num_prop[index], self.config))
            tokens = layers[-1].tokens
        record(self, layers)
        return x if plain == len(self) else tokens.x.view(batch, -1, dim)

    def _plain_blocks(self) -> int:
        if torch.compiler.is_exporting():
            return 0
        return next((index for index, amount in enumerate(self.num_prop) if amount), len(self))

    def _graph(self, x: Tensor) -> Tensor | None:
        if not self.config.uses_graph or not any(self.num_prop):
            return None
        image_tokens = x[:, self.num_prefix :]
        graph = token_graph(image_tokens if len(x) > 1 else image_tokens[0], self.grid, self.config)
        return with_prefix(graph, self.num_prefix)


def run_block(block: Block, tokens: Tokens, amount: int, config: GTPConfig) -> Layer:
    """Run one timm ``Block``; between attention and MLP ``amount`` tokens leave.

    Modifications: the propagation (arXiv 2311.03035, figure 2), and the attention of ``attend``.
    """
    branch, attention = attend(block.attn, block.norm1(tokens.x), tokens, config.sparsity if amount else 1.0)
    layer = Layer(_add(tokens, block.ls1(branch), block.drop_path1))
    if amount:
        layer = reduce(layer.tokens, attention, amount, config)
    branch = block.ls2(block.mlp(block.norm2(layer.tokens.x)))
    return replace(layer, tokens=_add(layer.tokens, branch, block.drop_path2))


def reduce(tokens: Tokens, attention: Tensor, amount: int, config: GTPConfig) -> Layer:
    """Select by the attention map and propagate ``amount`` tokens of each image."""
    if config.token_scale and tokens.scale is None:
        tokens = replace(tokens, scale=tokens.x.new_ones(*tokens.axes, 1, tokens.count))
    values, order = rank(scores(attention, config.selection, tokens.num_prefix), tokens.num_prefix)
    last = tokens.count - amount - 1
    kept, left = propagate(tokens, order, amount, config.propagation)
    return Layer(kept, left, values[..., last] - values[..., last + 1])


def _add(tokens: Tokens, branch: Tensor, drop_path: nn.Module) -> Tokens:
    if drop_path.training:  # drops whole images, so it needs to see them
        branch = drop_path(branch.view(tokens.batch, -1, branch.shape[-1])).flatten(0, 1)
    return replace(tokens, x=tokens.x + branch)


def token_counts(blocks: GTPBlocks) -> list[tuple[int, int]]:
    """Tokens before and after the propagation of each layer, prefix tokens included."""
    counts = blocks.config.counts(len(blocks), blocks.grid[0] * blocks.grid[1])
    return [(before + blocks.num_prefix, after + blocks.num_prefix) for before, after in pairwise(counts)]
