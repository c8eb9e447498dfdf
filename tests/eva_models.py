"""Small models of timm's Eva family, in each of the forms that its names have."""

import inspect
from functools import partial
from typing import Any

import pytest
import timm
from helpers import tiny_vit
from timm.layers import AttentionRope, LayerNorm, RmsNorm, pos_embed_sincos
from timm.models.eva import Eva

ROPE = {"use_rot_pos_emb": True, "attn_type": "rope"}
DINOV3 = {
    "use_rot_pos_emb": True,
    "rope_type": "dinov3",
    "rope_temperature": 100.0,
    "rope_rotate_half": True,
    "use_abs_pos_emb": False,
    "use_fc_norm": False,
}
EVAS: dict[str, dict[str, Any]] = {
    "EVA": {},
    "EVA-02": {
        "use_rot_pos_emb": True,
        "ref_feat_shape": (8, 8),
        "swiglu_mlp": True,
        "scale_mlp": True,
        "scale_attn_inner": True,
        "qkv_fused": False,
        "global_pool": "token",
    },
    "DINOv3": {**DINOV3, "num_reg_tokens": 4, "qkv_bias": False, "init_values": 0.5, "num_classes": 0},
    "PE": {
        **ROPE,
        "use_pre_transformer_norm": True,
        "rope_grid_offset": 1.0,
        "rope_grid_indexing": "xy",
        "global_pool": "map",
        "attn_pool_num_heads": 2,
        "norm_layer": partial(LayerNorm, eps=1e-5),
    },
    "mixed": {**ROPE, "rope_type": "mixed", "rope_temperature": 10.0, "use_abs_pos_emb": False, "img_size": (32, 48)},
    "mrope": {"use_rot_pos_emb": True, "rope_type": "mrope", "rope_mrope_section": (1, 2, 2)},
    "post-norm": {"use_post_norm": True, "use_rot_pos_emb": True},
    "Sapiens2": {
        **DINOV3,
        "attn_type": "rope",
        "qkv_fused": False,
        "num_kv_heads": (3, 1, 1),
        "qk_norm": True,
        "swiglu_mlp": True,
        "init_values": 0.5,
        "attn_only_layer_scale": True,
        "num_reg_tokens": 1,
        "norm_layer": partial(RmsNorm, eps=1e-6),
    },
    "registers": {**ROPE, "class_token": False, "num_reg_tokens": 1, "swiglu_mlp": True},
    "no prefix": {**ROPE, "class_token": False, "no_embed_class": True},
    "gated": {"use_rot_pos_emb": True, "gated": True},
}
KNOWN = {"gated", *inspect.signature(Eva.__init__).parameters, *inspect.signature(AttentionRope.__init__).parameters}
NEW = {name: {*form, *(["num_kv_heads"] if name == "gated" else [])} - KNOWN for name, form in EVAS.items()}
if not hasattr(pos_embed_sincos, "_rope_layout"):  # before 1.0.31
    NEW["mixed"].add("mixed rotary embeddings in float64")
evas = pytest.mark.parametrize("name", EVAS)


def tiny_eva(name: str = "EVA-02") -> Any:
    """Make one of ``EVAS`` in eval mode with seeded weights; skip what this timm does not have yet."""
    if NEW[name]:
        pytest.skip(f"timm {timm.__version__} has no {', '.join(sorted(NEW[name]))}")
    overrides = dict(EVAS[name])
    kind: Any = GatedEva if overrides.pop("gated", False) else Eva
    model = tiny_vit(kind=kind, **overrides)
    model.__class__ = Eva
    return model


class GatedEva(Eva):  # type: ignore[misc]
    """``Eva`` has no argument for what its attention can: a gate, and norms of neighbouring channels that rotate."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        for block in self.blocks:
            block.attn = AttentionRope(
                24, 4, qkv_fused=False, num_kv_heads=2, attn_head_dim=8, qk_norm=True, norm_layer=LayerNorm, gated=True
            )
