"""Directories of Hugging Face: what transformers saved answers as transformers does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import gtp_models  # noqa: F401 - lets torchvision be imported
from gtp_models.errors import (
    HubUnreachableError,
    ModelsError,
    UnknownModelError,
    UnsupportedModelError,
    WeightsError,
    WeightsUnavailableError,
)
from gtp_models.huggingface import read_hub_model
from gtp_models.huggingface_weights import load_hub_weights
from gtp_models.recipes import load_recipe
from gtp_models.weights import build_model

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
TOWER = SIZES | {"intermediate_size": 100}
TEXT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
LABELS = {"id2label": {0: "cat", 1: "dog", 2: "owl"}}


TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
BOTH = {"vision_config": TOWER, "text_config": TEXT | TOKENS}
PATCHES = {key: value for key, value in TOWER.items() if key != "image_size"} | {"num_patches": 16}
GATED = TOWER | {"num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"}
PROJECTED = ("CLIPVisionConfig", "CLIPVisionModelWithProjection", TOWER | {"projection_dim": 24}, "image_embeds")

MODELS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "ViT": ("ViTConfig", "ViTForImageClassification", TOWER | LABELS, "logits"),
    "ViT, features": ("ViTConfig", "ViTModel", TOWER, "token"),
    "ViT, no biases": ("ViTConfig", "ViTForImageClassification", TOWER | LABELS | {"qkv_bias": False}, "logits"),
    "ViT, tanh": ("ViTConfig", "ViTForImageClassification", TOWER | {"hidden_act": "gelu_pytorch_tanh"}, "logits"),
    "ViT, wide images": ("ViTConfig", "ViTForImageClassification", TOWER | {"image_size": [16, 64]}, "logits"),
    "ViT, one channel": ("ViTConfig", "ViTForImageClassification", TOWER | {"num_channels": 1}, "logits"),
    "ViT-MAE": ("ViTMAEConfig", "ViTMAEModel", TOWER | {"mask_ratio": 0.0}, "token"),
    "DeiT": ("DeiTConfig", "DeiTForImageClassification", TOWER | LABELS, "logits"),
    "DeiT, both heads": ("DeiTConfig", "DeiTForImageClassificationWithTeacher", TOWER | LABELS, "logits"),
    "DINOv2": ("Dinov2Config", "Dinov2Model", SIZES, "pooler_output"),
    "DINOv2, gated": ("Dinov2Config", "Dinov2Model", SIZES | {"use_swiglu_ffn": True}, "pooler_output"),
    "DINOv2, registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", SIZES, "pooler_output"),
    "DINOv3": ("DINOv3ViTConfig", "DINOv3ViTModel", TOWER | {"num_register_tokens": 4}, "pooler_output"),
    "DINOv3, gated": ("DINOv3ViTConfig", "DINOv3ViTModel", GATED, "pooler_output"),
    "CLIP tower": ("CLIPVisionConfig", "CLIPVisionModel", TOWER, "pooler_output"),
    "CLIP, projection": PROJECTED,
    "SigLIP tower": ("SiglipVisionConfig", "SiglipVisionModel", TOWER, "pooler_output"),
    "SigLIP, classes": ("SiglipConfig", "SiglipForImageClassification", BOTH | LABELS, "logits"),
    "SigLIP 2 tower": ("Siglip2VisionConfig", "Siglip2VisionModel", PATCHES, "pooler_output"),
}


def saved(directory: Path, name: str, **changes: Any) -> Any:
    """Save a seeded model of transformers, and return it."""
    config_name, class_name, sizes, _ = MODELS[name]
    torch.manual_seed(5)
    model = getattr(transformers, class_name)(getattr(transformers, config_name)(**sizes | changes)).eval()
    for key, parameter in model.named_parameters():
        if "position" not in key or not parameter.is_floating_point():
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(directory)
    return model


def answer(model: Any, name: str, images: torch.Tensor) -> torch.Tensor:
    """What transformers answers."""
    output = MODELS[name][3]
    if name.startswith("SigLIP 2"):
        count, channels, rows, columns = images.shape
        side = 8
        patches = images.reshape(count, channels, rows // side, side, columns // side, side).permute(0, 2, 4, 3, 5, 1)
        patches = patches.reshape(count, -1, side * side * channels)
        shapes = torch.tensor([[rows // side, columns // side]] * count)
        mask = torch.ones(patches.shape[:2], dtype=torch.int64)
        answered = model(patches, pixel_attention_mask=mask, spatial_shapes=shapes)
    else:
        answered = model(pixel_values=images)
    return answered.last_hidden_state[:, 0] if output == "token" else getattr(answered, output)


@pytest.mark.parametrize("name", MODELS)
def test_models_answer_as_transformers_does(tmp_path: Path, name: str) -> None:
    theirs = saved(tmp_path, name)
    ours = build_model(load_recipe(str(tmp_path))).model
    images = torch.randn(2, ours.patch_embed.proj.in_channels, *ours.patch_embed.img_size)
    with torch.inference_mode():
        expected, outputs = answer(theirs, name, images), ours(images)
    assert outputs.shape == expected.shape
    torch.testing.assert_close(outputs, expected, atol=1e-4, rtol=1e-4)


def processor(directory: Path, **values: Any) -> None:
    (directory / "preprocessor_config.json").write_text(json.dumps(values), "utf-8")


HALF: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
FIXED: dict[str, Any] = {"size": {"height": 32, "width": 32}}
CROPPED: dict[str, Any] = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
PROCESSORS: dict[str, dict[str, Any]] = {
    "squash": HALF | FIXED | {"resample": 2},
    "number": {"size": 32, "resample": 3, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]},
    "crop": HALF | CROPPED | {"size": {"shortest_edge": 37}, "resample": 3},
    "not normalised": FIXED | {"do_normalize": False},
    "to 1 and -1": FIXED | {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
    "not rescaled": FIXED | {"do_rescale": False, "image_mean": [127.0] * 3, "image_std": [60.0] * 3},
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_images_are_prepared_as_transformers_does(tmp_path: Path, name: str) -> None:
    from gtp_exporters.subject import preprocessing_of

    saved(tmp_path, "ViT")
    processor(tmp_path, **PROCESSORS[name])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8))
    theirs = transformers.BitImageProcessorPil if name == "crop" else transformers.ViTImageProcessorPil
    expected = theirs(**PROCESSORS[name])(image, return_tensors="np")["pixel_values"]
    ours = preprocessing_of(build_model(load_recipe(str(tmp_path))).model)
    np.testing.assert_allclose(ours.normalise(ours.pixels(image)[None]), expected, atol=1e-4)


def test_positions_are_resampled_as_transformers_does_where_the_processor_crops_otherwise(tmp_path: Path) -> None:
    theirs = saved(tmp_path, "DINOv2")
    processor(tmp_path, **HALF, size={"shortest_edge": 64}, do_center_crop=True, crop_size=48)
    built = build_model(load_recipe(str(tmp_path)))
    assert any("4x4 to 6x6" in note for note in built.notes)
    images = torch.randn(1, 3, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(built.model(images), theirs(images).pooler_output, atol=1e-4, rtol=1e-4)


def test_labels_and_projection(tmp_path: Path) -> None:
    saved(tmp_path / "vit", "ViT")
    saved(tmp_path / "numbered", "ViT, tanh")
    saved(tmp_path / "clip", "CLIP, projection")
    assert load_recipe(str(tmp_path / "vit")).labels == ["cat", "dog", "owl"]
    assert load_recipe(str(tmp_path / "numbered")).labels is None
    assert load_recipe(str(tmp_path / "clip")).projection


def test_shards_and_pickled_weights_are_read(tmp_path: Path) -> None:
    theirs = saved(tmp_path, "ViT")
    expected = build_model(load_recipe(str(tmp_path))).sha256
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsUnavailableError):
        build_model(load_recipe(str(tmp_path)))
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert build_model(load_recipe(str(tmp_path))).sha256 == expected
    for path in tmp_path.glob("model*"):
        path.unlink()
    from safetensors.torch import load_file

    theirs.save_pretrained(tmp_path / "one")
    state = load_file(tmp_path / "one" / "model.safetensors")
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert build_model(load_recipe(str(tmp_path))).sha256 == expected
    (tmp_path / "pytorch_model.bin").unlink()
    parts = {f"pytorch_model-{number}.bin": list(state)[number::2] for number in range(2)}
    for name, keys in parts.items():
        torch.save({key: state[key] for key in keys}, tmp_path / name)
    index = {"weight_map": {key: name for name, keys in parts.items() for key in keys}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index), "utf-8")
    assert build_model(load_recipe(str(tmp_path))).sha256 == expected


@pytest.mark.parametrize("name", ["DINOv2ForImageClassification", "Swin", "CLIP classes"])
def test_what_has_no_equal_is_refused(tmp_path: Path, name: str) -> None:
    config = {
        "DINOv2ForImageClassification": {"model_type": "dinov2", "architectures": ["Dinov2ForImageClassification"]},
        "Swin": {"model_type": "swin", "architectures": ["SwinModel"]},
        "CLIP classes": {"model_type": "clip", "architectures": ["CLIPForImageClassification"]},
    }[name]
    (tmp_path / "config.json").write_text(json.dumps(config | SIZES), "utf-8")
    with pytest.raises(UnsupportedModelError):
        load_recipe(str(tmp_path))


@pytest.mark.parametrize(
    "steps",
    [{"do_resize": False}, {"size": {"shortest_edge": 64}}, {"size": {"max_pixels": 9}}, {"resample": 5}, {"size": 32}],
)
def test_preprocessing_without_an_equal_is_refused(tmp_path: Path, steps: dict[str, Any]) -> None:
    saved(tmp_path, "ViT")
    processor(tmp_path, **steps)
    with pytest.raises(UnsupportedModelError):
        load_recipe(str(tmp_path))


@pytest.mark.parametrize("content", ["[]", "{", '{"model_type": 3}', "\xff"])
def test_a_damaged_configuration(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, "utf-8")
    with pytest.raises((WeightsError, UnsupportedModelError)):
        read_hub_model(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": None},
        {"patch_size": 0},
        {"id2label": 3},
        {"hidden_size": "wide"},
        {"architectures": 4},
        {"layer_norm_eps": []},
    ],
    ids=str,
)
def test_values_of_another_form_are_refused_in_our_words(tmp_path: Path, change: dict[str, Any]) -> None:
    saved(tmp_path, "ViT")
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | change), "utf-8")
    with pytest.raises(ModelsError):
        load_recipe(str(tmp_path))


@pytest.mark.parametrize("size", [[224, 224], {"width": 3}, "large"])
def test_a_processor_of_another_form_is_refused_in_our_words(tmp_path: Path, size: Any) -> None:
    saved(tmp_path, "ViT")
    processor(tmp_path, **HALF, size=size)
    with pytest.raises(ModelsError):
        load_recipe(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "class_name", "defaults", "act"),
    [
        ("siglip", "SiglipModel", "SiglipVisionConfig", "gelu_tanh"),
        ("clip", "CLIPModel", "CLIPVisionConfig", "quick_gelu"),
        ("vit", "ViTModel", "ViTConfig", "gelu"),
    ],
)
def test_what_old_configurations_leave_out_is_what_transformers_takes(
    tmp_path: Path, kind: str, class_name: str, defaults: str, act: str
) -> None:
    towers = {} if kind == "vit" else {"vision_config": {"model_type": f"{kind}_vision_model"}}
    config = {"model_type": kind, "architectures": [class_name], **towers}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    theirs = getattr(
        transformers, {"siglip": "SiglipVisionConfig", "clip": "CLIPVisionConfig", "vit": "ViTConfig"}[kind]
    )()
    model = read_hub_model(tmp_path)
    assert model.model_args["act_layer"] == act
    assert model.model_args["patch_size"] == theirs.patch_size
    assert model.layer_norm_eps == theirs.layer_norm_eps


def test_shards_elsewhere_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, "ViT")
    (tmp_path / "model.safetensors").rename(tmp_path.parent / "away.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../away.safetensors"}}), "utf-8"
    )
    with pytest.raises(WeightsError):
        load_hub_weights(read_hub_model(tmp_path))


# --- timm's own directories ------------------------------------------------------------------------------------------

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize("safe", [True, False])
def test_timms_directories(tmp_path: Path, safe: bool) -> None:
    from timm.models import save_for_hf

    torch.manual_seed(1)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=96, **SMALL).eval()
    model.pretrained_cfg |= {"mean": (0.1, 0.2, 0.3), "crop_pct": 1.0, "input_size": (3, 96, 96)}
    described = {"label_names": ["n1", "n2", "n3"], "label_descriptions": {"n1": "cat", "n2": "dog", "n3": "owl"}}
    save_for_hf(model, str(tmp_path), described, model_args={"img_size": 96, **SMALL}, safe_serialization=safe)
    recipe = load_recipe(str(tmp_path))
    built = build_model(recipe)
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(built.model(images), model(images))
    assert recipe.labels == ["cat", "dog", "owl"]
    assert tuple(built.model.pretrained_cfg["mean"]) == (0.1, 0.2, 0.3)


def test_names_of_the_hub_are_read_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--someone--vit" / "snapshots" / ("0" * 40)
    saved(snapshot, "ViT")
    refs = tmp_path / "models--someone--vit" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40, "utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("gtp_models.hub._connects", lambda url: False)
    for name in ("hf:someone/vit", "hf-hub:someone/vit"):
        recipe = load_recipe(name)
        assert recipe.name == "vit"
        assert build_model(recipe).source == "pretrained"
    with pytest.raises(HubUnreachableError):
        load_recipe("hf:someone/other")
    with pytest.raises(UnknownModelError):
        load_recipe("hf:some one/vit/x")


@pytest.mark.parametrize("name", ["num_hidden_layers", "hidden_size", "image_size", "num_channels"])
def test_sizes_that_no_model_has_are_refused_before_it_is_made(tmp_path: Path, name: str) -> None:
    saved(tmp_path, "ViT")
    config = json.loads((tmp_path / "config.json").read_text("utf-8")) | {name: 10**9}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(WeightsError, match="at most"):
        load_recipe(str(tmp_path))
