"""The free drop: tokens are sliced off without any selection, the floor of what reducing tokens can cost."""

from dataclasses import replace

from gtp_models.gtp.attention import Attended
from gtp_models.gtp.blocks import ReducingBlocks
from gtp_models.gtp.config import GTPConfig
from gtp_models.gtp.families.forms import Blocks
from gtp_models.gtp.tokens import Tokens
from gtp_models.gtp.trace import Layer


class DropBlocks(ReducingBlocks):
    """Modifications: the last tokens of each image leave, whatever they hold."""

    selects = False

    def __init__(self, blocks: Blocks, config: GTPConfig, grid: tuple[int, int], num_prefix: int) -> None:
        config.counts(len(blocks), grid[0] * grid[1])
        super().__init__(blocks, config.schedule(len(blocks)), num_prefix)

    def reduce(self, tokens: Tokens, attended: Attended, amount: int) -> Layer:  # noqa: ARG002
        ids = tokens.ids if tokens.ids is not None else tokens.positions()
        rows = tokens.x.view(*tokens.axes, tokens.count, -1)[..., : tokens.count - amount, :]
        kept = replace(tokens, x=rows.reshape(-1, rows.shape[-1]), ids=ids[..., :-amount])
        return Layer(kept, ids[..., -amount:], ids.new_zeros(tokens.axes).to(rows.dtype))
