"""Directories of transformers and timm: ``config.json``, ``preprocessor_config.json`` and an index of weights.

An input is one JSON document with these files by name; what is no such document is ``config.json`` itself.
"""

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from targets.base import Target, edits, refused, write

NAMES = ("config.json", "preprocessor_config.json", "model.safetensors.index.json")
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
SIZED = {**SIZES, "image_size": 16, "patch_size": 4, "num_channels": 3}
PROCESSOR = {
    "do_resize": True,
    "size": {"height": 16, "width": 16},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
CROPPED = {**PROCESSOR, "size": {"shortest_edge": 18}, "do_center_crop": True, "crop_size": {"height": 16, "width": 16}}
INDEX = {"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
LABELLED = {"id2label": {"0": "cat", "1": "dog"}, "problem_type": "single_label_classification"}
CONFIGS: tuple[dict[str, Any], ...] = (
    {"model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_act": "gelu", **SIZED, **LABELLED},
    {"model_type": "dinov2", "architectures": ["Dinov2Model"], "mlp_ratio": 2, "use_swiglu_ffn": True, **SIZED},
    {"model_type": "dinov3_vit", "architectures": ["DINOv3ViTModel"], "num_register_tokens": 2, **SIZED},
    {"model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": 8, "vision_config": SIZED},
    {"model_type": "siglip2", "architectures": ["Siglip2Model"], "vision_config": {**SIZED, "num_patches": 16}},
    {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 2,
        "label_names": ["cat", "dog"],
        "model_args": {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 3},
        "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9},
    },
)


def read_directory(content: bytes, folder: Path) -> None:
    from gtp_models import load_recipe
    from gtp_models.huggingface import read_hub_model
    from gtp_models.huggingface_weights import load_hub_weights

    files = _files(content)
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)
        if name in files:
            write(folder, name, files[name])
    with refused():
        load_hub_weights(read_hub_model(folder))
    load_recipe(str(folder))


def _files(content: bytes) -> dict[str, bytes]:
    try:
        values = json.loads(content)
        if isinstance(values, dict) and isinstance(values.get(NAMES[0]), dict):
            return {name: json.dumps(values[name]).encode() for name in NAMES if name in values}
    except (ValueError, RecursionError):
        pass
    return {NAMES[0]: content}


def _document(config: dict[str, Any], processor: dict[str, Any] = PROCESSOR) -> dict[str, Any]:
    return dict(zip(NAMES, (config, processor, INDEX), strict=True))


def directory_seeds() -> list[bytes]:
    documents = [*map(_document, CONFIGS), _document(CONFIGS[0], CROPPED)]
    return [json.dumps(document).encode() for document in documents]


WORDS = (b'"num_hidden_layers": 2', b"999999999", b"null", b"[[", b'"height"', b"LABEL_0", b"../", b"1e400", b"-1")
STRUCTURED = st.one_of([edits(lambda config=config: _document(config)) for config in CONFIGS])  # type: ignore[misc]
TARGET = Target(read_directory, directory_seeds, WORDS, STRUCTURED)
