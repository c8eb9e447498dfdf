"""timm's transformer blocks, run one after the other with the token state between them."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gtp_models.errors import ConfigError
from gtp_models.gtp.attention import Attended, attend
from gtp_models.gtp.config import GTPConfig
from gtp_models.gtp.families import block_form
from gtp_models.gtp.families.forms import Blocks
from gtp_models.gtp.graph import token_graph
from gtp_models.gtp.propagation import propagate
from gtp_models.gtp.rotary import rope_rows, rope_table
from gtp_models.gtp.selection import rank, scores
from gtp_models.gtp.sparsity import Threshold, calibrated_threshold, exact_threshold
from gtp_models.gtp.tokens import Tokens
from gtp_models.gtp.trace import Layer, record, start


class ReducingBlocks(nn.Sequential):
    """A timm model's ``blocks``, patched: (B, tokens, dim) in, (B, fewer tokens, dim) out.

    A method that reduces tokens says how in ``reduce``, between the attention and the MLP of a block.

    Modifications:
    - holds the same blocks under the same names, so that state dicts do not change
    - blocks before the first layer that reduces run as timm has them; when exporting, all blocks run in
      the form that gives the leaner graph

    Args:
        blocks: timm's.
        num_prop: tokens that leave in each layer.
        num_prefix: prefix tokens in front, who never leave.
    """

    selects = True  # whether which tokens leave depends on the image
    first_row = False  # whether ``reduce`` looks at no more of the attention map than what the first token gives

    def __init__(self, blocks: Blocks, num_prop: Sequence[int], num_prefix: int) -> None:
        super().__init__(OrderedDict(blocks.named_children()))
        self.num_prop = tuple(num_prop)
        self.num_prefix = num_prefix

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):  # timm cuts models with blocks[:n]; a part is no whole to patch
            return nn.Sequential(OrderedDict(list(self.named_children())[index]))
        return super().__getitem__(index)

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        rope: Float[Tensor, "*layer_heads patches twice_dim"] | None = None,
    ) -> Float[Tensor, "batch fewer dim"]:
        """Run all blocks.

        Args:
            x: the embedded tokens.
            rope: timm's rotary embeddings of the patches, in models that have them.
        """
        batch, dim = x.shape[0], x.shape[-1]
        start(self)
        graph = self.graph(x) if any(self.num_prop) else None
        plain = self._plain_blocks()
        for index in range(plain):
            x = self[index](x) if rope is None else self[index](x, rope=rope if rope.ndim == 2 else rope[index])
            record(self, Layer(Tokens(x.flatten(0, 1), batch, self.num_prefix)))
        table = None if rope is None else rope_table(rope, self.num_prefix, not self[0].attn.rotate_half)
        tokens = Tokens(x.reshape(-1, dim), batch, self.num_prefix, graph=graph, rope=table)
        for index in range(plain, len(self)):
            layer = self.run_block(index, tokens)
            record(self, layer)
            tokens = layer.tokens
        return x if plain == len(self) else tokens.x.view(batch, -1, dim)

    def _plain_blocks(self) -> int:
        if torch.compiler.is_exporting():
            return 0
        return next((index for index, amount in enumerate(self.num_prop) if amount), len(self))

    def run_block(self, index: int, tokens: Tokens) -> Layer:
        """Run one block; between attention and MLP tokens of each image leave, if they do in this layer."""
        block = self[index]
        form, amount = block_form(block), self.num_prop[index]
        threshold = self.threshold(index) if amount else None
        x, rope = form.attention_input(block, tokens.x), rope_rows(tokens, index)
        attended = attend(block.attn, x, tokens, threshold, rope, self.first_row and bool(amount))
        layer = Layer(_add(tokens, form.attention_branch(block, attended.out), block.drop_path1))
        if amount:
            layer = self.reduce(layer.tokens, attended, amount)
        branch = form.mlp_branch(block, layer.tokens.x)
        return replace(layer, tokens=_add(layer.tokens, branch, block.drop_path2))

    def graph(self, x: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return what is made of the (B, tokens, dim) input before the first block; nothing, by default."""
        return None

    def threshold(self, index: int) -> Threshold | None:  # noqa: ARG002
        """Return what sparsifies the attention map of a layer that reduces; nothing, by default."""
        return None

    def reduce(self, tokens: Tokens, attended: Attended, amount: int) -> Layer:
        """Let ``amount`` tokens of each image leave."""
        raise NotImplementedError


class GTPBlocks(ReducingBlocks):
    """GTP (arXiv 2311.03035, figure 2).

    Modifications:
    - builds the token graph from its input, once
    - selects by the attention map and propagates along the graph
    """

    def __init__(self, blocks: Blocks, config: GTPConfig, grid: tuple[int, int], num_prefix: int) -> None:
        config.counts(len(blocks), grid[0] * grid[1])
        super().__init__(blocks, config.schedule(len(blocks)), num_prefix)
        self.config = config
        self.grid = grid
        self.first_row = config.sparsity == 1 and config.selection.startswith("CLSAttn")
        self._check_calibration()

    def _check_calibration(self) -> None:
        config = self.config
        if config.threshold == "exact" or config.sparsity == 1 or type(self) is not GTPBlocks:
            return
        blocks: list[Any] = list(self)
        heads = [block.attn.num_heads if amount else 0 for block, amount in zip(blocks, self.num_prop, strict=True)]
        if config.calibration is None or [len(z) for z in config.calibration] != heads:
            raise ConfigError(
                "threshold='calibrated' needs a z for each head of each layer that reduces: measure them with "
                "gtp_export.calibrate(model, config, images), gtp-export calibrate, or --calib-data when exporting"
            )

    def threshold(self, index: int) -> Threshold | None:
        config = self.config
        if config.sparsity == 1:
            return None
        if config.threshold == "exact" or config.calibration is None:
            return lambda logits, attention: exact_threshold(attention, config.sparsity)
        z = torch.tensor(config.calibration[index])[:, None, None]
        return lambda logits, attention: calibrated_threshold(logits, attention, z.to(attention))

    def graph(self, x: Tensor) -> Tensor | None:
        if not self.config.uses_graph:
            return None
        return token_graph(x if len(x) > 1 else x.flatten(0, 1), self.grid, self.num_prefix, self.config)

    def reduce(self, tokens: Tokens, attended: Attended, amount: int) -> Layer:
        if self.config.token_scale:
            tokens = tokens.scaled()
        values, order = rank(scores(attended.map, self.config.selection, tokens.num_prefix), tokens.num_prefix)
        last = tokens.count - amount - 1
        kept, left = propagate(tokens, order, amount, self.config.propagation)
        return Layer(kept, left, values[..., last] - values[..., last + 1])


def _add(tokens: Tokens, branch: Tensor, drop_path: nn.Module) -> Tokens:
    if drop_path.training:  # drops whole images, so it needs to see them
        branch = drop_path(branch.view(tokens.batch, -1, branch.shape[-1])).flatten(0, 1)
    return replace(tokens, x=tokens.x + branch)
