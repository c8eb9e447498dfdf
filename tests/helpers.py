"""What several test files share."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from timm.layers import Attention, RmsNorm, SwiGLU, SwiGLUPacked
from timm.models import VisionTransformer
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor

from gtp_models.methods import METHODS, make_settings
from gtp_models.methods.gtp.calibration import calibrate
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.settings import Settings
from gtp_models.recipes import Recipe
from gtp_models.weights import build_model


@cache
def openvino_has(capability: str) -> bool:
    """Whether OpenVINO is installed, and says this of the CPU: "BF16"."""
    try:
        import openvino
    except ImportError:
        return False
    return capability in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def gated_vit(**arguments: Any) -> VisionTransformer:
    """Make a ViT whose attentions have output gates, which no argument of timm's asks for."""
    model = VisionTransformer(**arguments)
    for block in model.blocks:
        block.attn = Attention(model.embed_dim, block.attn.num_heads, qkv_bias=True, gated=True)
    return model


TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
TINY_GTP = GTPConfig(num_prop=3, num_neighbours=4, sparsity=0.7)  # GTP's defaults are too much for 16 tokens
TINY_RECIPE = Recipe("tiny", "a tiny ViT", "vit_tiny_patch16_224", model_args=TINY)
VARIANTS: dict[str, dict[str, Any]] = {
    "class token": {},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 3},
    "only registers": {"class_token": False, "global_pool": "avg", "reg_tokens": 3},
    "distilled": {"kind": VisionTransformerDistilled},
    "not square": {"img_size": (32, 48)},
    "layer scale": {"init_values": 0.5},
    "qk_norm": {"qk_norm": True},
    "attention norm": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "no qkv bias": {"qkv_bias": False},
    "pre-norm": {"pre_norm": True, "no_embed_class": True},
    "attention pool": {"global_pool": "map"},
    "no classes": {"num_classes": 0},
    "gated": {"kind": gated_vit},
    "norms after": {"block_fn": ResPostBlock},
    "fc_norm": {"fc_norm": True, "num_classes": 0},
    "class token not pooled": {"global_pool": "avg", "no_embed_class": True, "reg_tokens": 2},
    "no final norm": {"final_norm": False, "init_values": 0.1},
    "no position embeddings": {"pos_embed": "none"},
    "AIMv2's parts": {"norm_layer": RmsNorm, "embed_norm_layer": RmsNorm, "mlp_layer": SwiGLU, "qkv_bias": False},
    "packed SwiGLU": {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU},
    "quick GELU": {"act_layer": "quick_gelu"},
    "GELU by tanh": {"act_layer": "gelu_tanh"},
    "norm in the patch embedding": {"embed_norm_layer": torch.nn.LayerNorm},
}
PREFIXES: dict[str, dict[str, Any]] = {
    "no prefix": {"class_token": False, "global_pool": "avg"},
    "1 prefix": {},
    "2 prefix": {"reg_tokens": 1},
    "5 prefix": {"reg_tokens": 4},
}
variants = pytest.mark.parametrize("overrides", VARIANTS.values(), ids=list(VARIANTS))
METHOD_CASES: dict[str, tuple[str, dict[str, Any]]] = {  # every method, and GTP's other forms
    **{name: (name, {}) for name in METHODS.names()},
    "gtp-None": ("gtp", {"propagation": "None"}),
    "gtp-Mean": ("gtp", {"propagation": "Mean"}),
    "gtp-measured": ("gtp", {"selection": "Regeneration", "graph": "Nearest", "propagation": "MergeNorm"}),
}
methods = pytest.mark.parametrize("method", METHOD_CASES)
prefixes = pytest.mark.parametrize("prefix", PREFIXES.values(), ids=list(PREFIXES))


def tiny_vit(kind: Callable[..., Any] = VisionTransformer, **overrides: Any) -> Any:
    """Make a small model in eval mode whose seeded weights all matter: no bias is 0, no norm's weight is 1."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = kind(**TINY | overrides)
        for name, value in model.named_parameters():
            noise = torch.randn_like(value)
            if value.ndim == 1:
                value.add_(0.1 * noise)
            elif name.endswith(("pos_embed", "_token")):
                value.copy_(0.3 * noise)
            else:
                value.copy_(noise * (1.5 / value[0].numel() ** 0.5))
    return model.eval()


def settings_of(method: str, num_prop: Any = 3, **of_gtp: Any) -> Settings:
    """Return the settings of one of ``METHOD_CASES`` for 16 tokens; ``of_gtp`` go to GTP alone."""
    name, own = METHOD_CASES[method]
    if name == "dense":
        return make_settings(name)
    if name == "gtp":
        own = {"num_neighbours": 4} | own | of_gtp
    return make_settings(name, num_prop=num_prop, **own)


def fitted(model: Any, config: GTPConfig) -> GTPConfig:
    """Return the settings, fitted to a few images of noise where the selection is "Fixed"."""
    return calibrate(model, config, [images_for(model, 2)]) if config.needs_moves else config


def noise_of(*shape: int, seed: int = 0) -> Tensor:
    """Make seeded noise."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images_for(model: Any, batch: int = 2) -> Tensor:
    """Make noise of the model's image size."""
    return noise_of(batch, 3, *model.patch_embed.img_size)


def tiny_weights(seed: int = 1) -> dict[str, Tensor]:
    """Make seeded weights that fit ``TINY_RECIPE``."""
    weights: dict[str, Tensor] = build_model(TINY_RECIPE, "random", seed=seed).model.state_dict()
    return weights
