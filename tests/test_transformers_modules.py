"""transformers' own ViTs: patched as the same weights in timm are, and exported within their models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import noise_of
from torch import Tensor, nn

import gtp_runtime
from gtp_exporters import ExportOptions, export_module
from gtp_exporters.whole import find_backbone
from gtp_models import ConfigError, GTPConfig, UnsupportedModelError, apply, build_model, load_recipe, remove
from gtp_models import trace_tokens as traced
from gtp_runtime.images.preprocessing import Preprocessing

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
DINOV2 = SIZES | {"mlp_ratio": 2}
VIT = SIZES | {"intermediate_size": 48}
MEASURED = GTPConfig(num_prop=(4, 0, 5, 0), selection="Regeneration", graph="Nearest", propagation="MergeNorm")
NONE = GTPConfig(num_prop=0)
PLAIN = Preprocessing([32, 32], "squash", [32, 32], "bilinear", [0.5] * 3, [0.5] * 3, [0, 0, 0])


def made(config: Any, class_name: str) -> Any:
    torch.manual_seed(3)
    model = getattr(transformers, class_name)(config).eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.02 if "position" in name else 0.1)
    return model


def backbone_config(**changes: Any) -> Any:
    return transformers.Dinov2Config(**DINOV2, out_indices=[1, 2, 3, 4], reshape_hidden_states=False, **changes)


def depth_anything(backbone: Any = None, class_name: str = "DepthAnythingForDepthEstimation") -> Any:
    sizes = {"neck_hidden_sizes": [4] * 4, "fusion_hidden_size": 4, "head_hidden_size": 4, "patch_size": 8}
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone or backbone_config(), reassemble_hidden_size=24, **sizes
    )
    return made(config, class_name)


def images(height: int = 32, width: int = 32) -> Tensor:
    return noise_of(3, 3, height, width).clamp(-1, 1)


MODELS: dict[str, tuple[Any, str]] = {
    "DINOv2": (transformers.Dinov2Config(**DINOV2), "Dinov2Model"),
    "DINOv2, gated": (transformers.Dinov2Config(**DINOV2, use_swiglu_ffn=True), "Dinov2Model"),
    "DINOv2, registers": (transformers.Dinov2WithRegistersConfig(**DINOV2), "Dinov2WithRegistersModel"),
    "ViT": (transformers.ViTConfig(**VIT), "ViTModel"),
    "ViT, no biases": (transformers.ViTConfig(**VIT, qkv_bias=False), "ViTModel"),
    "DeiT": (transformers.DeiTConfig(**VIT), "DeiTModel"),
}


@pytest.mark.parametrize("name", MODELS)
def test_tokens_leave_as_in_timm(tmp_path: Path, name: str) -> None:
    model, given = made(*MODELS[name]), images()
    model.save_pretrained(tmp_path)
    twin = build_model(load_recipe(str(tmp_path))).model
    before = model(given).last_hidden_state
    for settings in (NONE, MEASURED):
        apply(model, settings, restore=True)
        apply(twin, settings, restore=True)
        with torch.inference_mode(), traced(model) as steps:
            out = model(given, output_hidden_states=True)
        with torch.inference_mode(), traced(twin) as expected:
            last = twin.forward_features(given)
            layers = twin.get_intermediate_layers(given, n=range(4), return_prefix_tokens=True)
        torch.testing.assert_close(out.last_hidden_state, last, atol=1e-4, rtol=1e-4)
        for hidden, (patches, prefix) in zip(out.hidden_states[1:], layers, strict=True):
            torch.testing.assert_close(hidden, torch.cat([prefix, patches], 1), atol=1e-4, rtol=1e-4)
        assert all(torch.equal(one.kept, other.kept) for one, other in zip(steps, expected, strict=True))
        is_dense = settings is NONE
        assert torch.allclose(out.last_hidden_state, before, atol=1e-4) == is_dense
    remove(model)
    assert torch.equal(model(given).last_hidden_state, before)


def test_images_of_another_size_than_the_configuration_says() -> None:
    model, given = made(backbone_config(), "Dinov2Backbone"), images(48, 32)
    before = model(given).feature_maps
    _, vit = find_backbone(model, size=(48, 32))
    assert vit.patch_embed.grid_size == (6, 4)
    apply(vit, NONE, restore=True)
    for layer, expected in zip(model(given).feature_maps, before, strict=True):
        torch.testing.assert_close(layer, expected, atol=1e-5, rtol=1e-5)
    apply(vit, MEASURED, restore=True)
    assert [layer.shape for layer in model(given).feature_maps] == [expected.shape for expected in before]
    with pytest.raises(UnsupportedModelError):
        find_backbone(made(transformers.ViTConfig(**VIT), "ViTModel"), size=(48, 32))


def test_the_backbone_of_vitpose() -> None:
    config = transformers.VitPoseBackboneConfig(**VIT, out_indices=[2, 4])
    model, given = made(config, "VitPoseBackbone"), images()
    before = model(given).feature_maps
    apply(model, NONE, restore=True)
    for layer, expected in zip(model(given).feature_maps, before, strict=True):
        torch.testing.assert_close(layer, expected, atol=1e-5, rtol=1e-5)
    apply(model, MEASURED, restore=True)
    with traced(model) as steps:
        reduced = model(given).feature_maps
    assert [step.kept.shape[1] for step in steps] == [12, 12, 7, 7]
    assert [layer.shape for layer in reduced] == [expected.shape for expected in before]
    patch = int(steps[0].propagated[0, 0])  # with whom it merged it shares its vector
    assert torch.equal(reduced[0][0, patch], reduced[0][0, int(steps[0].received_by[0, 0])])  # type: ignore[index]


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("depth") / "depth"
    done = exported(depth_anything(), place)
    assert done.proof is not None and done.proof.parity is not None and done.proof.parity.ok
    return place


def exported(module: nn.Module, place: Path, **given: Any) -> Any:
    options: dict[str, Any] = {"settings": MEASURED, "preprocessing": PLAIN, "report": False} | given
    return export_module(module, images(), place, **options)


def test_depth_anything_whole(depth: Path) -> None:
    module = depth_anything()
    dense = module(images()).predicted_depth
    apply(module.backbone, MEASURED, restore=True)
    with gtp_runtime.load(depth) as model, torch.inference_mode():
        batch = model.prepare(model.reference().images)
        outputs = model.run_all(batch)
        assert [spec.name for spec in model.manifest.entry("model.onnx").answers] == ["predicted_depth"]
        assert model.validate().kept_agreement == 1
        expected = module(torch.from_numpy(batch)).predicted_depth
    np.testing.assert_allclose(outputs["predicted_depth"], expected.numpy(), atol=1e-4)
    assert not torch.allclose(dense, module(images()).predicted_depth)
    manifest = gtp_runtime.read_manifest(depth)
    assert manifest.model.name == "DepthAnythingForDepthEstimation"
    assert [layer.tokens_out for layer in manifest.layers] == [13, 13, 8, 8]
    assert all(layer.nodes > 5 for layer in manifest.layers)


CLASSIFIERS = {
    "Dinov2ForImageClassification": transformers.Dinov2Config(**DINOV2, num_labels=5),
    "ViTForImageClassification": transformers.ViTConfig(**VIT, num_labels=5),
    "ViTForMaskedImageModeling": transformers.ViTConfig(**VIT, encoder_stride=8),
}


@pytest.mark.full
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_models_with_a_head(tmp_path: Path, name: str) -> None:
    done = exported(made(CLASSIFIERS[name], name), tmp_path / "out", options=ExportOptions(input="uint8"))
    assert done.proof is not None and done.proof.parity is not None and done.proof.parity.ok


@pytest.mark.full
def test_pose_whole(tmp_path: Path) -> None:
    sides = {"image_size": [32, 32], "patch_size": [8, 8]}
    backbone = transformers.VitPoseBackboneConfig(**VIT | sides, out_indices=[4])
    module = made(transformers.VitPoseConfig(backbone_config=backbone, num_labels=3), "VitPoseForPoseEstimation")
    done = exported(module, tmp_path / "out")
    assert done.proof is not None and done.proof.parity is not None and done.proof.parity.ok
    assert [spec.name for spec in done.manifest.entry("model.onnx").answers] == ["heatmaps"]


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vit = made(transformers.ViTConfig(**VIT), "ViTModel")

    def forward(self, batch: Tensor) -> Tensor:
        mask = torch.ones(len(batch), 17)
        mask[:, 9:] = 0
        return self.vit(batch, attention_mask=mask).pooler_output


class Skipping(Masked):
    def forward(self, batch: Tensor) -> Tensor:
        x = self.vit.embeddings(batch)
        for layer in self.vit.layers:
            x = layer(x) + 1
        return x


def moe_pose() -> nn.Module:
    config = transformers.VitPoseBackboneConfig(**VIT, num_experts=3, part_features=8)
    return made(config, "VitPoseBackbone")


def flexible() -> nn.Module:
    model = made(transformers.ViTConfig(**VIT), "ViTModel")
    model.config._attn_implementation = "flex_attention"
    return model


def swin() -> nn.Module:
    return depth_anything(transformers.SwinConfig(embed_dim=24, depths=[1] * 4, num_heads=[1] * 4, image_size=32))


def attention_maps() -> nn.Module:
    return made(transformers.Dinov2Config(**DINOV2, output_attentions=True, attn_implementation="eager"), "Dinov2Model")


def rotary() -> nn.Module:
    return made(transformers.DINOv3ViTConfig(**VIT), "DINOv3ViTModel")


@pytest.mark.parametrize("module", [Masked, Skipping, moe_pose, flexible, swin, attention_maps, rotary])
def test_what_cannot_be_patched_is_refused(tmp_path: Path, module: Any) -> None:
    with pytest.raises((UnsupportedModelError, ConfigError)):
        exported(module().eval(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_preprocessing_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="preprocessing"):
        exported(depth_anything(), tmp_path / "out", preprocessing=None)


def test_full_grids_are_needed() -> None:
    model = made(transformers.ViTConfig(**VIT), "ViTModel")
    apply(model, MEASURED)
    with pytest.raises(UnsupportedModelError, match="restore"):
        model(images())
