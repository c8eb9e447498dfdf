"""timm's Eva: EVA, EVA-02, DINOv3, Perception Encoder, ViTs with rotary embeddings."""

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import AttentionRope, RotaryEmbedding
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn

from gtp_models.errors import UnsupportedModelError
from gtp_models.frame.families.forms import FAMILIES, BlockForm, Blocks, Family, Linear, fused


class PatchedEva(Eva):  # type: ignore[misc]
    """timm's ``Eva`` while it is patched.

    Modifications:
    - passes all tokens and rotary embeddings to the blocks at once
    - what no patch supports (attention masks, gradient checkpointing, fewer blocks) runs as in ``Eva``, block
      by block, unpatched
    """

    def forward_features(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        one_by_one = attn_mask is not None or is_causal or self.grad_checkpointing
        if one_by_one or type(self.blocks) in (nn.ModuleList, nn.Sequential):
            return super().forward_features(x, attn_mask, is_causal)
        x, rope = self._pos_embed(self.patch_embed(x))
        return self.norm(self.blocks(self.norm_pre(x), rope))


def _projections(attn: Any) -> tuple[Linear, Linear, Linear]:
    """Projections of ``EvaAttention``, whose biases are separate from a fused projection, and of ``AttentionRope``."""
    if attn.qkv is None:
        return tuple((part.weight, part.bias) for part in (attn.q_proj, attn.k_proj, attn.v_proj))  # type: ignore[return-value]
    if getattr(attn, "q_bias", None) is None:
        return fused(attn, attn.qkv.bias)
    return fused(attn, torch.cat([attn.q_bias, attn.k_bias, attn.v_bias]))


def _scaled(gamma: Tensor | None, branch: Tensor) -> Tensor:
    return branch if gamma is None else gamma * branch


def _check(model: Any) -> None:
    if model.patch_drop is not None:
        raise UnsupportedModelError(
            "the model was made with patch_drop_rate, which removes tokens on its own: create it with patch_drop_rate=0"
        )
    if type(model.rope) is RotaryEmbedding:
        raise UnsupportedModelError(
            "RotaryEmbedding (rope_type='base') cannot be patched: it returns sine and cosine separately, which "
            "timm's Eva does not support either; use rope_type='cat'"
        )


def _plain(blocks: Mapping[str, nn.Module]) -> Blocks:
    return nn.ModuleList(blocks.values())


def _install(model: Any, blocks: Blocks, patched: bool) -> None:
    model.blocks = blocks
    model.__class__ = PatchedEva if patched else Eva


FAMILIES.add(
    Family(
        name="Eva",
        blocks={
            EvaBlock: BlockForm(
                attention_input=lambda block, x: block.norm1(x),
                attention_branch=lambda block, out: _scaled(block.gamma_1, out),
                mlp_branch=lambda block, x: _scaled(block.gamma_2, block.mlp(block.norm2(x))),
            ),
            EvaBlockPostNorm: BlockForm(
                attention_input=lambda block, x: x,
                attention_branch=lambda block, out: block.norm1(out),
                mlp_branch=lambda block, x: block.norm2(block.mlp(x)),
            ),
        },
        attentions={EvaAttention: _projections, AttentionRope: _projections},
        holds=lambda model: type(model) in (Eva, PatchedEva),
        check=_check,
        plain=_plain,
        install=_install,
    )
)
