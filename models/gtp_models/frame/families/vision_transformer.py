"""timm's VisionTransformer: DeiT, AugReg, DINOv2, CLIP, SigLIP, …"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from timm.layers import Attention
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block, ResPostBlock
from torch import nn

from gtp_models.frame.families.forms import BlockForm, Blocks, Family, fused


def _plain(blocks: Mapping[str, nn.Module]) -> Blocks:
    return nn.Sequential(OrderedDict(blocks))


def _install(model: Any, blocks: Blocks, patched: bool) -> None:  # noqa: ARG001
    model.blocks = blocks


FAMILY = Family(
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
    check=lambda model: None,
    plain=_plain,
    install=_install,
)
