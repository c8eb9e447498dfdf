"""The weights of Hugging Face's directories, by timm's names."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gtp_models.checkpoints import Checkpoint, read_checkpoint
from gtp_models.errors import WeightsError, WeightsUnavailableError
from gtp_models.huggingface import HubModel, read_json, understood

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")

# names of transformers → names of timm, applied in this order to every key
LAYER = r"^(?:encoder\.|model\.)?layers?\.(\d+)\."
RENAMED: tuple[tuple[str, str], ...] = (
    (r"^(?:vit|deit|dinov2|dinov2_with_registers|dinov3_vit|vision_model|model(?=\.embeddings|\.norm))\.", ""),
    (r"^embeddings\.(?:cls_token|class_embedding)$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings?(?:\.weight)?$", "pos_embed"),
    (r"^embeddings\.patch_embeddings?\.(?:projection\.)?", "patch_embed.proj."),
    (LAYER, r"blocks.\1."),
    (r"\.(?:attention\.attention|self_attn|attention)\.(?:(q)uery|(k)ey|(v)alue|([qkv])_proj)\.", r".attn.\1\2\3\4."),
    (r"\.(?:attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.", ".attn.proj."),
    (r"\.(?:intermediate\.dense|mlp\.up_proj|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"\.(?:output\.dense|mlp\.down_proj|mlp\.weights_out)\.", ".mlp.fc2."),
    (r"\.(?:layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(?:layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^(?:layernorm|post_layernorm)\.", "norm."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^(?:classifier|cls_classifier)\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
    (r"^visual_projection\.weight$", "head.weight"),
)
LEFT_OUT = re.compile(
    r"pooler\.|decoder|text_model\.|text_projection|logit_(scale|bias)|.*mask_token$|.*position_ids$|mask_token"
)


def load_hub_weights(model: HubModel) -> Checkpoint:
    """Read the weights of a directory, by timm's names.

    Raises:
        WeightsUnavailableError: there are none.
        WeightsError: they cannot be read, or have names that are not known.
    """
    path, state = _read_weights(model.path)
    if not model.kind:
        return Checkpoint(path, state)
    left = sorted(key for key in state if LEFT_OUT.match(_stripped(key)))
    with understood(path):
        state = _shaped(_renamed({key: value for key, value in state.items() if key not in left}), model)
    parts = sorted({_stripped(key).partition(".")[0] for key in left})
    notes = (f"left out what this model does not use ({', '.join(parts)})",) if parts else ()
    return Checkpoint(path, state, notes)


def _read_weights(path: Path) -> tuple[Path, dict[str, Tensor]]:
    for name in WEIGHTS:
        if (path / name).is_file():
            return path / name, read_checkpoint(path / name, unwrap=False).state
    for index in (path / name for name in INDICES):
        if index.is_file():
            return index, _read_shards(index)
    raise WeightsUnavailableError(f"{path} has no weights: it needs {', '.join(WEIGHTS)}")


def _read_shards(index: Path) -> dict[str, Tensor]:
    with understood(index):
        shards = sorted(set(read_json(index)["weight_map"].values()))
    if any(not isinstance(shard, str) or "/" in shard or "\\" in shard for shard in shards):
        raise WeightsError(f"{index} names files elsewhere: save the model again")
    parts = [read_checkpoint(index.parent / shard, unwrap=False).state for shard in shards]
    return {key: value for part in parts for key, value in part.items()}


def _stripped(key: str) -> str:
    return re.sub(RENAMED[0][0], "", key)


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def _shaped(state: dict[str, Tensor], model: HubModel) -> dict[str, Tensor]:
    """Give the tensors the shapes of timm: queries, keys and values in one, tokens and positions with a batch axis."""
    gated = {key.removesuffix("gate_proj.weight") for key in state if key.endswith("mlp.gate_proj.weight")}
    for key in [key for key in state if key.partition("mlp.")[0] + "mlp." in gated]:
        state[key.replace("mlp.gate_proj.", "mlp.fc1_g.").replace("mlp.fc1.", "mlp.fc1_x.")] = state.pop(key)
    state = _joined(state, "dinov3" in model.kind)
    state = _pooled(state)
    for name in ("cls_token", "pos_embed", "dist_token", "reg_token"):
        if name in state:
            state[name] = state[name].reshape(1, -1, state[name].shape[-1])
    if model.kind == "deit" and "head_dist.weight" not in state and "dist_token" in state:
        state["reg_token"] = state.pop("dist_token")
    if model.kind == "dinov2_with_registers":
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    if "head.weight" in state and "head.bias" not in state:
        state["head.bias"] = torch.zeros(state["head.weight"].shape[0])
    patches = state.get("patch_embed.proj.weight")
    if patches is not None and patches.ndim == 2:  # of SigLIP 2: of pixels in the order rows, columns, channels
        side = model.model_args["patch_size"]
        state["patch_embed.proj.weight"] = (
            patches.reshape(len(patches), side, side, -1).permute(0, 3, 1, 2).contiguous()
        )
    if not model.model_args["num_classes"]:
        state = {key: value for key, value in state.items() if not key.startswith(("head.", "head_dist."))}
    if model.timm.startswith("vit_base_patch16_siglip_gap"):
        state = {key: value for key, value in state.items() if not key.startswith("attn_pool.")}
    if model.kind.startswith("dinov3") and not state["reg_token"].numel():
        del state["reg_token"]
    return state


def _joined(state: Mapping[str, Tensor], eva: bool) -> dict[str, Tensor]:
    """Join queries, keys and values; Eva keeps the biases of queries and values apart, and has none of keys."""
    joined: dict[str, Tensor] = {}
    for key, value in state.items():
        match = re.fullmatch(r"(blocks\.\d+\.attn\.)([qkv])\.(weight|bias)", key)
        if match is None:
            joined[re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", key) if eva else key] = value
        elif eva and match[3] == "bias":
            if match[2] != "k":
                joined[f"{match[1]}{match[2]}_bias"] = value
        elif match[2] == "q":
            parts = [state[f"{match[1]}{part}.{match[3]}"] for part in "qkv"]
            joined[f"{match[1]}qkv.{match[3]}"] = torch.cat(parts)
    return joined


def _pooled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename SigLIP's attention pooling, whose query is apart from keys and values in timm."""
    if "head.probe" not in state:
        return dict(state)
    names = {"probe": "latent", "attention.out_proj.": "proj.", "layernorm.": "norm.", "mlp.": "mlp."}
    pooled = {}
    for key, value in state.items():
        if key.startswith("head.attention.in_proj_"):
            kind, width = key.removeprefix("head.attention.in_proj_"), value.shape[0] // 3
            pooled[f"attn_pool.q.{kind}"], pooled[f"attn_pool.kv.{kind}"] = value[:width], value[width:]
        elif key.startswith("head.") and (old := next((old for old in names if key[5:].startswith(old)), None)):
            pooled[f"attn_pool.{names[old]}{key[5 + len(old) :]}"] = value
        else:
            pooled[key] = value
    return pooled
