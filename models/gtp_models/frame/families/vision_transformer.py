"""timm's VisionTransformer: DeiT, AugReg, DINOv2, CLIP, SigLIP, …"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from timm.layers import Attention
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block, ResPostBlock
from timm.models.vision_transformer_hybrid import HybridEmbed
from torch import nn

from gtp_models.errors import UnsupportedModelError
from gtp_models.frame.families.forms import FAMILIES, BlockForm, Blocks, Family, fused

_REASONS = {  # by the class's name
    "ParallelScalingBlock": "attention and MLP run in parallel, so tokens cannot be removed between them",
    "ParallelThingsBlock": "several attentions run in parallel, each with an attention map of its own",
    "DiffParallelScalingBlock": "attention and MLP run in parallel, so tokens cannot be removed between them",
}


def _plain(blocks: Mapping[str, nn.Module]) -> Blocks:
    return nn.Sequential(OrderedDict(blocks))


def _install(model: Any, blocks: Blocks, patched: bool) -> None:  # noqa: ARG001
    model.blocks = blocks


def _check(model: Any) -> None:
    name = type(model).__name__
    if type(model).forward_features is not VisionTransformer.forward_features:
        raise UnsupportedModelError(
            f"{name} cannot be patched: it overrides forward_features, and the patch relies on how timm's "
            "VisionTransformer runs its blocks"
        )
    if isinstance(model.patch_embed, HybridEmbed):
        raise UnsupportedModelError(
            f"{name} with a {type(model.patch_embed.backbone).__name__} in front (hybrid) cannot be patched: the "
            "MACs of its convolutions are not counted, and their export is not tested"
        )
    for block in model.blocks:
        reason = _REASONS.get(type(block).__name__)
        if reason is not None:
            raise UnsupportedModelError(f"blocks of {type(block).__name__} cannot be patched: {reason}")


FAMILIES.add(
    Family(
        name="VisionTransformer",
        blocks={
            Block: BlockForm(
                attention_input=lambda block, x: block.norm1(x),
                attention_branch=lambda block, out: block.ls1(out),
                mlp_branch=lambda block, x: block.ls2(block.mlp(block.norm2(x))),
            ),
            ResPostBlock: BlockForm(
                attention_input=lambda block, x: x,
                attention_branch=lambda block, out: block.norm1(out),
                mlp_branch=lambda block, x: block.norm2(block.mlp(x)),
            ),
        },
        attentions={Attention: lambda attn: fused(attn, attn.qkv.bias)},
        holds=lambda model: isinstance(model, VisionTransformer),
        check=_check,
        plain=_plain,
        install=_install,
    )
)
