"""timm's transformer blocks, run in order with the tokens' state between them."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gtp_models.frame.attention import AttentionOutput, Threshold, attend, rope_rows, rope_table
from gtp_models.frame.families import block_form
from gtp_models.frame.families.forms import Blocks
from gtp_models.frame.pooling import hand_over_sizes
from gtp_models.frame.restore import Restore
from gtp_models.frame.tokens import Departed, Tokens
from gtp_models.frame.trace import Layer, record, start


class ReducingBlocks(nn.Sequential):
    """A timm model's ``blocks``, patched: (B, tokens, dim) in, (B, fewer tokens, dim) out.

    A method overrides ``reduce``, which runs between the attention and the MLP of a block. This class itself removes no
    token: it is the dense model.

    Modifications:
    - holds the same blocks under the same names, so that state dicts do not change
    - blocks before the first layer that reduces run as timm has them; when exporting, all blocks run in
      the form that gives the leaner graph

    - with ``restore``, the tokens are put back on the grid behind the last block: (B, tokens, dim) again

    Args:
        blocks: timm's.
        num_prop: tokens that leave in each layer.
        num_prefix: prefix tokens in front, which never leave.
    """

    selects = True  # whether the image decides which tokens leave
    first_row = False  # whether ``reduce`` reads only the first row of the attention map
    one_receiver = False  # whether ``reduce`` gives one receiver for each token that leaves
    merges = False  # whether a token's scale is the number of patches that it stands for, by which pooling weighs it

    def __init__(self, blocks: Blocks, num_prop: Sequence[int], num_prefix: int) -> None:
        super().__init__(OrderedDict(blocks.named_children()))
        self.num_prop = tuple(num_prop)
        self.num_prefix = num_prefix
        self.restore: Restore | None = None

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):  # timm shortens models with blocks[:n]; the part is not patched
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
        for behind in self.states(x, rope):
            last = behind
        return self.handed_over(*last)

    def states(
        self, x: Float[Tensor, "batch tokens dim"], rope: Tensor | None = None
    ) -> Iterator[tuple[Float[Tensor, "batch fewer dim"], Tokens]]:
        """Run block after block and give the vectors and the state behind each; arguments as for ``forward``."""
        start(self)
        tokens, plain = self.embedded(x, rope), self._plain_blocks()
        for index in range(len(self)):
            if index < plain:
                x = self[index](x) if rope is None else self[index](x, rope=rope if rope.ndim == 2 else rope[index])
                layer = Layer(replace(tokens, x=x.flatten(0, 1)))
            else:
                layer = self.run_block(index, tokens)
                x = layer.tokens.x.view(tokens.batch, -1, x.shape[-1])
            record(self, layer)
            tokens = layer.tokens
            yield x, tokens

    def handed_over(
        self, x: Float[Tensor, "batch fewer dim"], tokens: Tokens
    ) -> Float[Tensor, "batch fewer_or_all dim"]:
        """Return what follows the blocks: ``x``, or the vectors of all places where tokens are put back."""
        weighs = self.merges and self.restore is None
        hand_over_sizes(self, tokens.sizes() if weighs else None)
        return self.restore(tokens) if self.restore is not None and tokens.departed else x

    def embedded(self, x: Float[Tensor, "batch tokens dim"], rope: Tensor | None) -> Tokens:
        """Return the state before the first block; arguments as for ``forward``."""
        setup = self.setup(x) if any(self.num_prop) else None
        table = None if rope is None else rope_table(rope, self.num_prefix, not self[0].attn.rotate_half)
        return Tokens(x.reshape(-1, x.shape[-1]), x.shape[0], self.num_prefix, setup=setup, rope=table)

    def _plain_blocks(self) -> int:
        if torch.compiler.is_exporting() or not block_form(self[0]).runs_alone:
            return 0
        return next((index for index, amount in enumerate(self.num_prop) if amount), len(self))

    def run_block(self, index: int, tokens: Tokens) -> Layer:
        """Run one block; if this layer reduces, tokens leave between attention and MLP."""
        block = self[index]
        form, amount = block_form(block), self.num_prop[index]
        threshold = self.threshold(index) if amount else None
        x, rope = form.attention_input(block, tokens.x), rope_rows(tokens, index)
        attention = attend(block.attn, x, tokens, threshold, rope, self.first_row and bool(amount))
        layer = Layer(_add(tokens, form.attention_branch(block, attention.out), block.drop_path1))
        if amount:
            layer = _departed(self.reduce(layer.tokens, attention, amount))
        branch = form.mlp_branch(block, layer.tokens.x)
        return replace(layer, tokens=_add(layer.tokens, branch, block.drop_path2))

    def setup(self, x: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return what the method makes of the (B, tokens, dim) input before the first block; None by default."""
        return None

    def threshold(self, index: int) -> Threshold | None:  # noqa: ARG002
        """Return what sparsifies the attention map of a layer that reduces; None by default."""
        return None

    def reduce(self, tokens: Tokens, attention: AttentionOutput, amount: int) -> Layer:
        """Let ``amount`` tokens of each image leave."""
        raise NotImplementedError


def _departed(layer: Layer) -> Layer:
    """Add those that left in a layer to what its tokens know."""
    assert layer.left is not None
    departed = (*layer.tokens.departed, Departed(layer.left, layer.receivers))
    return replace(layer, tokens=replace(layer.tokens, departed=departed))


def _add(tokens: Tokens, branch: Tensor, drop_path: nn.Module) -> Tokens:
    if drop_path.training:  # drops whole images, so it needs to see them
        branch = drop_path(branch.view(tokens.batch, -1, branch.shape[-1])).flatten(0, 1)
    return replace(tokens, x=tokens.x + branch)
