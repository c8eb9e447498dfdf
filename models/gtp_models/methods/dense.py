"""The dense model: no token leaves. The baseline of every comparison, in the same lean form as the methods."""

from dataclasses import dataclass
from typing import ClassVar

from gtp_models.errors import ConfigError
from gtp_models.frame.blocks import ReducingBlocks
from gtp_models.frame.families.forms import Blocks
from gtp_models.methods import METHODS
from gtp_models.methods.settings import Settings
from gtp_models.plan import Plan


@METHODS.add
@dataclass(frozen=True)
class DenseSettings(Settings):
    """Settings of the dense model: none."""

    num_prop: int | tuple[int, ...] | None = 0

    name: ClassVar[str] = "dense"
    summary: ClassVar[str] = "no tokens are removed (baseline)"

    def __post_init__(self) -> None:
        if self.num_prop != 0 or any(value is not None for value in (self.keep, self.macs, self.schedule)):
            raise ConfigError("dense takes no num_prop, keep, macs or schedule: it removes no tokens")
        super().__post_init__()

    def blocks(self, blocks: Blocks, plan: Plan) -> ReducingBlocks:
        return ReducingBlocks(blocks, plan.num_prop, plan.shape.num_prefix)
