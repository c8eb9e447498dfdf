"""The drop baseline: tokens are sliced off without a selection. It is the lower bound of latency."""

from dataclasses import dataclass, replace
from typing import ClassVar

from gtp_models.frame.attention import Attended
from gtp_models.frame.blocks import ReducingBlocks
from gtp_models.frame.families.forms import Blocks
from gtp_models.frame.tokens import Tokens
from gtp_models.frame.trace import Layer
from gtp_models.methods import METHODS
from gtp_models.methods.settings import LayerShape, Settings
from gtp_models.plan import Plan


@METHODS.add
@dataclass(frozen=True)
class DropSettings(Settings):
    """Settings of the drop baseline."""

    name: ClassVar[str] = "drop"
    summary: ClassVar[str] = "the last tokens are sliced off without a selection (baseline: the lower bound of latency)"

    def topk(self, layer: LayerShape) -> int:  # noqa: ARG002
        return 0

    def blocks(self, blocks: Blocks, plan: Plan) -> ReducingBlocks:
        return DropBlocks(blocks, plan.num_prop, plan.shape.num_prefix)


class DropBlocks(ReducingBlocks):
    """Modifications: the last tokens of each image leave."""

    selects = False

    def reduce(self, tokens: Tokens, attended: Attended, amount: int) -> Layer:  # noqa: ARG002
        ids = tokens.ids if tokens.ids is not None else tokens.positions()
        rows = tokens.x.view(*tokens.axes, tokens.count, -1)[..., : tokens.count - amount, :]
        kept = replace(tokens, x=rows.reshape(-1, rows.shape[-1]), ids=ids[..., :-amount])
        return Layer(kept, ids[..., -amount:], ids.new_zeros(tokens.axes).to(rows.dtype))
