"""The baselines: the dense model, and tokens that are sliced off without a selection."""

from dataclasses import dataclass, replace
from typing import ClassVar

from gtp_models.errors import ConfigError
from gtp_models.frame.attention import AttentionOutput
from gtp_models.frame.blocks import ReducingBlocks
from gtp_models.frame.tokens import Tokens
from gtp_models.frame.trace import Layer
from gtp_models.methods import METHODS, Method
from gtp_models.methods.settings import LayerShape, Settings


@dataclass(frozen=True)
class DenseSettings(Settings):
    """Settings of the dense model: none. It is the baseline of every comparison, in the lean form of the methods."""

    num_prop: int | tuple[int, ...] | None = 0

    name: ClassVar[str] = "dense"
    summary: ClassVar[str] = "no tokens are removed (baseline)"

    def __post_init__(self) -> None:
        if self.num_prop != 0 or any(value is not None for value in (self.keep, self.macs, self.schedule)):
            raise ConfigError("dense takes no num_prop, keep, macs or schedule: it removes no tokens")
        super().__post_init__()


@dataclass(frozen=True)
class DropSettings(Settings):
    """Settings of the drop baseline, which is the lower bound of latency."""

    name: ClassVar[str] = "drop"
    summary: ClassVar[str] = "the last tokens are sliced off without a selection (baseline: the lower bound of latency)"

    def topk(self, layer: LayerShape) -> int:  # noqa: ARG002
        return 0


class DropBlocks(ReducingBlocks):
    """Modifications: the last tokens of each image leave."""

    selects = False

    def reduce(self, tokens: Tokens, attention: AttentionOutput, amount: int) -> Layer:  # noqa: ARG002
        ids = tokens.ids if tokens.ids is not None else tokens.positions()
        rows = tokens.rows()[..., : tokens.count - amount, :]
        kept = replace(tokens, x=rows.reshape(-1, rows.shape[-1]), ids=ids[..., :-amount])
        return Layer(kept, ids[..., -amount:], ids.new_zeros(tokens.axes).to(rows.dtype))


METHODS.add(
    Method(DenseSettings, lambda blocks, plan: ReducingBlocks(blocks, plan.num_prop, plan.shape.num_prefix)),
)
METHODS.add(
    Method(DropSettings, lambda blocks, plan: DropBlocks(blocks, plan.num_prop, plan.shape.num_prefix)),
)
