"""Directories of Hugging Face: what transformers saved, and what timm's ``save_for_hf`` and ``push_to_hf_hub`` wrote.

``config.json`` says which model it is, and ``preprocessor_config.json`` how images are prepared. A ViT of transformers
is described by arguments of a timm model with the same arithmetic, and its weights are renamed; nothing of transformers
is needed. What has no such model is refused with the reason.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gtp_models.errors import UnsupportedModelError, WeightsError, WeightsUnavailableError
from gtp_models.recipes.reading import LOADING, size_problems
from gtp_runtime.errors import GTPError
from gtp_runtime.messages import one_line
from gtp_runtime.opening import read_regular

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
LARGEST = 1 << 24  # bytes of a JSON file; 20,000 class names take half a megabyte
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}


@dataclass(frozen=True)
class HubModel:
    """A model in a directory, as timm can build it.

    Attributes:
        path: the directory.
        timm: timm's model name.
        model_args: arguments of ``timm.create_model``.
        preprocessing: entries of timm's pretrained configuration.
        labels: class names; None where unknown.
        activation: "softmax" or "sigmoid", where the configuration says.
        projection: whether the head is a projection into a space of embeddings, not a classifier.
        layer_norm_eps: of every LayerNorm; None leaves timm's.
        antialias: whether position embeddings are resampled with antialiasing (timm's way) or without.
        trained_size: (height, width) in pixels that the position embeddings are of.
        kind: the ``model_type`` of transformers; "" for timm's own directories.
    """

    path: Path
    timm: str
    model_args: dict[str, Any]
    preprocessing: dict[str, Any]
    labels: list[str] | None = None
    activation: str | None = None
    projection: bool = False
    layer_norm_eps: float | None = None
    antialias: bool = True
    trained_size: tuple[int, int] = (224, 224)
    kind: str = ""


@dataclass(frozen=True)
class Kind:
    """A ``model_type`` of transformers, and the timm model that computes the same.

    Attributes:
        timm: the model whose blocks are the same.
        arguments: further arguments of timm, from the configuration and the architecture's name.
        heads: architectures that can be mapped; others are refused.
        refused: architectures that cannot, each with the reason.
        defaults: what transformers takes where a configuration does not say: old ones hold little.
    """

    timm: str
    heads: tuple[str, ...]
    arguments: Callable[[Mapping[str, Any], str], dict[str, Any]] = lambda config, head: {}
    refused: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


def _deit(_config: Mapping[str, Any], head: str) -> dict[str, Any]:
    # The distillation token is a register, unless its own classifier is there.
    return {} if head.endswith("WithTeacher") else {"reg_tokens": 1}


def _registers(config: Mapping[str, Any], _head: str) -> dict[str, Any]:
    return {"init_values": 1.0, "reg_tokens": config.get("num_register_tokens", 4), "no_embed_class": True}


def _dinov3(config: Mapping[str, Any], _head: str) -> dict[str, Any]:
    gated = config.get("use_gated_mlp", False)
    return {
        "num_reg_tokens": config.get("num_register_tokens", 0),
        "rope_temperature": float(config.get("rope_theta", 100.0)),
        "init_values": 1.0,
        "global_pool": "token",
        "qkv_bias": config.get("query_bias", True),
    } | ({"swiglu_mlp": True, "swiglu_align_to": 1} if gated else {})


# as the configurations of transformers 5 have them
VIT = {"layer_norm_eps": 1e-12, "patch_size": 16, "image_size": 224}
DINOV2 = {"layer_norm_eps": 1e-6, "patch_size": 14, "image_size": 224, "mlp_ratio": 4}
DINOV3 = {"layer_norm_eps": 1e-5, "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
CLIP = {"layer_norm_eps": 1e-5, "patch_size": 32, "image_size": 224, "hidden_act": "quick_gelu"}
SIGLIP = {"layer_norm_eps": 1e-6, "patch_size": 16, "image_size": 224, "hidden_act": "gelu_pytorch_tanh"}
SIGLIP2 = {"layer_norm_eps": 1e-6, "patch_size": 16, "num_patches": 256, "hidden_act": "gelu_pytorch_tanh"}
CLASSIFIED_BY_BOTH = "its classifier reads the class token beside the mean of the patches, which timm's ViT cannot"
KINDS = {
    "vit": Kind("vit_base_patch16_224", ("ViTForImageClassification", "ViTModel"), defaults=VIT),
    "vit_mae": Kind("vit_base_patch16_224", ("ViTMAEForPreTraining", "ViTMAEModel"), defaults=VIT),
    "deit": Kind(
        "vit_base_patch16_224",
        ("DeiTForImageClassification", "DeiTForImageClassificationWithTeacher", "DeiTModel"),
        _deit,
        defaults=VIT,
    ),
    "dinov2": Kind(
        "vit_base_patch14_dinov2",
        ("Dinov2Model", "Dinov2Backbone"),
        lambda config, head: {"init_values": 1.0},
        {"Dinov2ForImageClassification": CLASSIFIED_BY_BOTH},
        DINOV2,
    ),
    "dinov2_with_registers": Kind(
        "vit_base_patch14_reg4_dinov2",
        ("Dinov2WithRegistersModel", "Dinov2WithRegistersBackbone"),
        _registers,
        {"Dinov2WithRegistersForImageClassification": CLASSIFIED_BY_BOTH},
        DINOV2,
    ),
    "dinov3_vit": Kind("vit_small_patch16_dinov3_qkvb", ("DINOv3ViTModel", "DINOv3ViTBackbone"), _dinov3, {}, DINOV3),
    "clip": Kind("vit_base_patch32_clip_224", ("CLIPModel",), defaults=CLIP),
    "clip_vision_model": Kind(
        "vit_base_patch32_clip_224", ("CLIPVisionModel", "CLIPVisionModelWithProjection"), defaults=CLIP
    ),
    "siglip": Kind("vit_base_patch16_siglip_224", ("SiglipModel", "SiglipForImageClassification"), defaults=SIGLIP),
    "siglip_vision_model": Kind("vit_base_patch16_siglip_224", ("SiglipVisionModel",), defaults=SIGLIP),
    "siglip2": Kind("vit_base_patch16_siglip_224", ("Siglip2Model", "Siglip2ForImageClassification"), defaults=SIGLIP2),
    "siglip2_vision_model": Kind("vit_base_patch16_siglip_224", ("Siglip2VisionModel",), defaults=SIGLIP2),
}


# --- what a directory is ---------------------------------------------------------------------------------------------


def read_hub_model(path: Path) -> HubModel:
    """Read what a directory of transformers or timm holds; no weights are read.

    Raises:
        WeightsUnavailableError: no ``config.json``.
        WeightsError: a file of it is damaged.
        UnsupportedModelError: a kind of model, a head or a preprocessing that has no equal in timm.
    """
    config = read_json(path / CONFIG)
    with understood(path):
        hub_model = _of_timm(path, config) if "architecture" in config else _of_transformers(path, config)
        if problem := next(size_problems("config.json", hub_model.model_args), ""):
            raise WeightsError(f"{path} is no model: {problem}")
    return hub_model


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Raise ``WeightsError`` where a value has another type or form than transformers and timm write."""
    try:
        yield
    except GTPError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(
            f"{path} is not as save_pretrained or save_for_hf writes it ({type(error).__name__}: {one_line(error)}): "
            "save the model again"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a directory.

    Raises:
        WeightsUnavailableError: it is not there.
        WeightsError: it is damaged, or holds no object.
    """
    try:
        content = json.loads(read_regular(path, LARGEST))
    except FileNotFoundError as error:
        raise WeightsUnavailableError(
            f"{path.parent} has no {path.name}: give a directory that save_pretrained wrote"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"cannot read {path}: {one_line(error)}; save the model again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is not a configuration: save the model again")
    return content


def _of_timm(path: Path, config: Mapping[str, Any]) -> HubModel:
    pretrained = config.get("pretrained_cfg") or {}
    kept = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "num_classes")
    preprocessing = {name: pretrained[name] for name in kept if name in pretrained}
    args = {name: value for name, value in (config.get("model_args") or {}).items() if name not in LOADING}
    for name in ("num_classes", "global_pool"):
        if config.get(name) is not None:
            args.setdefault(name, config[name])
    names = config.get("label_names") or pretrained.get("label_names")
    described = config.get("label_descriptions") or pretrained.get("label_descriptions")
    labels = list(map(str, names)) if names else None
    if labels and isinstance(described, dict):
        labels = [str(described.get(name, name)) for name in labels]
    size = args.get("img_size") or tuple(preprocessing.get("input_size", (3, 224, 224)))[1:]
    return HubModel(path, str(config["architecture"]), args, preprocessing, labels, trained_size=_size(size))


def _of_transformers(path: Path, config: Mapping[str, Any]) -> HubModel:
    kind_name = str(config.get("model_type", ""))
    head = str((config.get("architectures") or [""])[0])
    kind = KINDS.get(kind_name)
    if kind is None:
        raise UnsupportedModelError(
            f"{path} holds a {kind_name or 'model of unknown type'} of transformers: supported are {', '.join(KINDS)}"
        )
    if head in kind.refused:
        raise UnsupportedModelError(
            f"{path} holds a {head}: {kind.refused[head]}; save its backbone alone for features"
        )
    if head and head not in kind.heads:
        raise UnsupportedModelError(f"{path} holds a {head} of transformers: supported are {', '.join(kind.heads)}")
    vision = dict(kind.defaults) | _vision_config(path, config, kind_name)
    name, args = _timm_arguments(path, kind, vision, head, config)
    size = _size(args["img_size"])
    preprocessing, input_size = _preprocessing(path, size)
    args["img_size"] = input_size
    labels = _labels(config) if args["num_classes"] and "ForImageClassification" in head else None
    projection = args["num_classes"] > 0 and labels is None and "ForImageClassification" not in head
    eps = float(vision["layer_norm_eps"])
    activation = _classifies_by(path, config) if args["num_classes"] and "ForImageClassification" in head else None
    return HubModel(path, name, args, preprocessing, labels, activation, projection, eps, False, size, kind_name)


def _vision_config(path: Path, config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the configuration of the image tower."""
    vision = config.get("vision_config") if kind in ("clip", "siglip", "siglip2") else config
    if not isinstance(vision, Mapping):
        raise WeightsError(f"{path / CONFIG} has no vision_config: save the model again")
    return dict(vision)


def _timm_arguments(
    path: Path, kind: Kind, vision: Mapping[str, Any], head: str, config: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return the timm model and its arguments: sizes from the configuration, widths of the MLP from the weights."""
    width = int(vision.get("hidden_size", 768))
    patch = _size(vision.get("patch_size", 16))
    if patch[0] != patch[1]:
        raise UnsupportedModelError(f"{path} has patches of {patch[0]}x{patch[1]} pixels: supported are square ones")
    name = kind.timm
    args: dict[str, Any] = {
        "img_size": _image_size(vision, patch[0]),
        "patch_size": patch[0],
        "in_chans": int(vision.get("num_channels", 3)),
        "embed_dim": width,
        "depth": int(vision.get("num_hidden_layers", 12)),
        "num_heads": int(vision.get("num_attention_heads", 12)),
        "num_classes": _classes(config, vision, head),
    } | kind.arguments(vision, head)
    if name.startswith("vit_") and "dinov3" not in name:
        args["qkv_bias"] = bool(vision.get("qkv_bias", True))
    args |= _activation(path, vision, name)
    if head.endswith("WithTeacher"):
        name = "deit_base_distilled_patch16_224"
    if "siglip" in name and head.endswith("ForImageClassification"):
        name = "vit_base_patch16_siglip_gap_224"  # the mean of the patches
    if vision.get("use_swiglu_ffn"):
        name = name.replace("vit_base", "vit_giant")
    args["mlp_ratio"] = _mlp_ratio(vision, width)
    return name, args


def _activation(path: Path, vision: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return the activation of the MLP; gated ones have SiLU, and Eva's others GELU."""
    if vision.get("use_swiglu_ffn") or vision.get("use_gated_mlp"):
        return {}
    activation = str(vision.get("hidden_act", "gelu"))
    choices = ("gelu",) if "dinov3" in name else tuple(ACTIVATIONS)
    if activation not in choices:
        raise UnsupportedModelError(f"{path} has hidden_act {activation}: supported are {', '.join(choices)}")
    return {} if "dinov3" in name else {"act_layer": ACTIVATIONS[activation]}


def _image_size(vision: Mapping[str, Any], patch: int) -> Any:
    if "num_patches" in vision:  # SigLIP 2: a square of positions
        return round(int(vision["num_patches"]) ** 0.5) * patch
    return vision.get("image_size", 224)


def _mlp_ratio(vision: Mapping[str, Any], width: int) -> float:
    """Return the ratio that gives exactly the width of the MLP's first layer."""
    if "mlp_ratio" in vision:
        hidden = int(width * vision["mlp_ratio"])
        if vision.get("use_swiglu_ffn"):  # both halves of the gated layer
            hidden = 2 * ((int(hidden * 2 / 3) + 7) // 8 * 8)
    else:
        hidden = int(vision.get("intermediate_size", 4 * width))
    return (hidden + 0.5) / width


def _classes(config: Mapping[str, Any], vision: Mapping[str, Any], head: str) -> int:
    if "ForImageClassification" in head:
        return len(config["id2label"]) if config.get("id2label") else int(config.get("num_labels", 2))
    if head in ("CLIPModel", "CLIPVisionModelWithProjection"):
        return int(config.get("projection_dim", vision.get("projection_dim", 512)))
    return 0


def _classifies_by(path: Path, config: Mapping[str, Any]) -> str | None:
    """Return the activation that ``problem_type`` asks for."""
    kind = config.get("problem_type")
    activations = {None: None, "single_label_classification": "softmax", "multi_label_classification": "sigmoid"}
    if kind not in activations:
        raise UnsupportedModelError(
            f"{path} has the problem_type {one_line(kind, 40)}: its outputs are values, not classes; where they are "
            "logits of classes, write single_label_classification or multi_label_classification into config.json"
        )
    return activations[kind]


def _labels(config: Mapping[str, Any]) -> list[str] | None:
    """Return the class names in the order of the classes; None where transformers numbered them."""
    names = config.get("id2label") or {}
    try:
        ordered = [str(names[key]) for key in sorted(names, key=int)]
    except (TypeError, ValueError):
        return None
    return None if all(re.fullmatch(r"LABEL_\d+", name) for name in ordered) else ordered


def _size(value: Any) -> tuple[int, int]:
    """Return (height, width) of a number, a pair or transformers' tables."""
    if isinstance(value, Mapping):
        value = (value["height"], value["width"])
    return (int(value[0]), int(value[1])) if isinstance(value, list | tuple) else (int(value), int(value))


# --- how images are prepared -----------------------------------------------------------------------------------------


def _preprocessing(path: Path, size: tuple[int, int]) -> tuple[dict[str, Any], tuple[int, int]]:
    """Translate an image processor to timm's configuration; return it and the (height, width) of the input.

    Raises:
        UnsupportedModelError: steps that have no equal.
    """
    if not (path / PROCESSOR).is_file():
        return {"input_size": (3, *size)}, size
    processor = read_json(path / PROCESSOR)
    resized, crop, mode = _steps(path, processor, size)
    scale = 255 * float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 255.0
    normalised = processor.get("do_normalize", True)
    mean, std = ([0.0] * 3, [1.0] * 3)
    if normalised:
        if not processor.keys() >= {"image_mean", "image_std"}:
            raise UnsupportedModelError(f"{path / PROCESSOR} has no image_mean and image_std: write them there")
        mean, std = processor["image_mean"], processor["image_std"]
    resample = processor.get("resample", 2)
    if resample not in RESAMPLING:
        raise UnsupportedModelError(f"{path / PROCESSOR} has resample {resample!r}: supported are {RESAMPLING}")
    return {
        "input_size": (3, *crop),
        "interpolation": RESAMPLING[resample],
        "mean": tuple(float(value) / scale for value in mean),
        "std": tuple(float(value) / scale for value in std),
        "crop_mode": mode,
        "crop_pct": crop[0] / (resized + 1e-3) if resized != crop[0] else 1.0,  # so that rounding down gives the size
    }, crop


def _steps(path: Path, processor: Mapping[str, Any], size: tuple[int, int]) -> tuple[int, tuple[int, int], str]:
    """Return to how many pixels the shorter side (or the height) is resized, the crop, and timm's crop mode."""
    if not processor.get("do_resize", True):
        raise UnsupportedModelError(f"{path / PROCESSOR} does not resize images: set do_resize and size there")
    target = processor.get("size", {"height": size[0], "width": size[1]})
    if isinstance(target, int):
        target = {"shortest_edge": target} if processor.get("do_center_crop") else {"height": target, "width": target}
    cropped = processor.get("do_center_crop", False)
    crop = _size(processor.get("crop_size", size)) if cropped else None
    if "shortest_edge" in target and crop is not None:
        return int(target["shortest_edge"]), crop, "center"
    if "shortest_edge" in target:
        raise UnsupportedModelError(f"{path / PROCESSOR} resizes without a crop, so that sizes differ: set crop_size")
    if not {"height", "width"} <= target.keys():
        raise UnsupportedModelError(
            f"{path / PROCESSOR} has a size of {sorted(target)}: supported are height and width, or shortest_edge"
        )
    resized = _size(target)
    crop = crop or resized
    if resized[0] * crop[1] != resized[1] * crop[0]:
        raise UnsupportedModelError(
            f"{path / PROCESSOR} crops {crop} from {resized}: supported are crops of the same shape"
        )
    return resized[0], crop, "squash"
