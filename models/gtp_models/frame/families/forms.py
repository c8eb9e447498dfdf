"""The adapter of a family of models: its blocks, its attention, and how its blocks are installed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gtp_models.errors import UnsupportedModelError
from gtp_runtime.registry import Registry

Blocks = nn.Sequential | nn.ModuleList
Linear = tuple[Tensor, Tensor | None]  # weight and bias
AttentionForm = Callable[[Any], tuple[Linear, Linear, Linear]]  # from timm's attention to query, key, value


@dataclass(frozen=True)
class BlockForm:
    """The parts of a block, each a function of the block and of (rows, dim) values.

    Attributes:
        attention_input: from the tokens to the input of attention.
        attention_branch: from attention's output to what is added to the tokens.
        mlp_branch: from the tokens to what the MLP adds to them.
        runs_alone: whether a block may be called where no token leaves.
    """

    attention_input: Callable[[Any, Tensor], Tensor]
    attention_branch: Callable[[Any, Tensor], Tensor]
    mlp_branch: Callable[[Any, Tensor], Tensor]
    runs_alone: bool = True


@dataclass(frozen=True)
class Family:
    """A family of models of timm or transformers.

    Attributes:
        name: its class, or whose.
        blocks: the classes of blocks that can be patched, and their forms.
        attentions: the same for attention.
        holds: whether a model, patched or not, is of this family.
        check: raise ``UnsupportedModelError`` for options of this family that are not supported.
        plain: put blocks into the container that the model uses.
        install: put patched (True) or plain blocks into a model.
    """

    name: str
    blocks: Mapping[type, BlockForm]
    attentions: Mapping[type, AttentionForm]
    holds: Callable[[Any], bool]
    check: Callable[[Any], None]
    plain: Callable[[Mapping[str, nn.Module]], Blocks]
    install: Callable[[Any, Blocks, bool], None]

    def check_supported(self, model: Any) -> None:
        """Raise ``UnsupportedModelError``, naming what does not fit and why, unless a model can be patched."""
        self.check(model)
        if model.dynamic_img_size:
            raise UnsupportedModelError(
                "the model was made with dynamic_img_size=True, but token reduction needs a fixed grid: create it with "
                "img_size=… and dynamic_img_size=False"
            )
        if model.grad_checkpointing:
            raise UnsupportedModelError(
                "gradient checkpointing is on, which runs the blocks one by one and bypasses the patch: "
                "call model.set_grad_checkpointing(False)"
            )
        for block in model.blocks:
            if type(block) not in self.blocks:
                raise UnsupportedModelError(
                    f"blocks of {type(block).__name__} cannot be patched: tokens leave between the attention and the "
                    f"MLP of timm's {_names(self.blocks)}"
                )
            if type(block.attn) not in self.attentions:
                raise UnsupportedModelError(
                    f"{type(block.attn).__name__} cannot be patched: token reduction needs the attention map of "
                    f"{_names(self.attentions)}"
                )


FAMILIES: Registry[Family] = Registry("family", UnsupportedModelError)


def _names(classes: Mapping[type, object]) -> str:
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in classes]
    return " or ".join(name.removeprefix("timm.models.").replace("layers.attention.", "layers.") for name in names)


def fused(attn: Any, bias: Tensor | None) -> tuple[Linear, Linear, Linear]:
    """Split a fused projection ``qkv``; ``bias`` is that of all three parts, one after the other."""
    size = attn.qkv.out_features // 3
    parts = [slice(start, start + size) for start in (0, size, 2 * size)]
    return tuple((attn.qkv.weight[part], None if bias is None else bias[part]) for part in parts)  # type: ignore[return-value]
