"""Whole modules around a ViT: patched, exported beside their dense twin, and proven like any model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers import noise_of, tiny_vit
from torch import Tensor, nn

import gtp_runtime
from gtp_exporters import ExportOptions, export_module
from gtp_exporters.whole import find_backbone, named_tensors
from gtp_models import ConfigError, GTPConfig, UnsupportedModelError, apply
from gtp_runtime.images.preprocessing import Preprocessing

MEASURED = GTPConfig(num_prop=(4, 0, 5), selection="Regeneration", graph="Nearest", propagation="MergeNorm")
PLAIN = Preprocessing([32, 32], "squash", [32, 32], "bilinear", [0.5] * 3, [0.5] * 3, [0, 0, 0])
pytestmark = pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")


class Depth(nn.Module):
    """A decoder on several layers, and a pooled output beside it, as depth models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"vit": tiny_vit(num_classes=0, reg_tokens=1)})
        torch.manual_seed(0)
        self.mix = nn.Conv2d(48, 8, 1)
        self.up = nn.ConvTranspose2d(8, 1, 8, stride=8)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        layers = self.encoder["vit"].get_intermediate_layers(images, n=[1, 2], reshape=True, norm=True)
        grid = self.mix(torch.cat(layers, 1)).relu()
        return {"depth": self.up(grid)[:, 0], "mean": grid.mean((2, 3))}


class Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = tiny_vit(num_classes=0)
        torch.manual_seed(0)
        self.head = nn.Linear(24, 6)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        patches = self.head(self.backbone.forward_features(images)[:, 1:])
        return {"logits": patches.transpose(1, 2).unflatten(-1, (4, 4))}


class OneByOne(Segmenter):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.backbone._pos_embed(self.backbone.patch_embed(images))
        for block in self.backbone.blocks:
            x = block(x)
        return {"logits": self.head(x)}


def images_in_range(count: int = 4) -> Tensor:
    return noise_of(count, 3, 32, 32).clamp(-1, 1)


def exported(module: nn.Module, place: Path, **given: Any) -> Any:
    options = {"settings": MEASURED, "preprocessing": PLAIN, "report": False} | given
    return export_module(module.eval(), images_in_range(), place, **options)


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("depth") / "depth"
    made = exported(Depth(), place, report=True)
    assert made.proof is not None and made.proof.parity is not None and made.proof.parity.ok
    return place


def test_names_shapes_and_macs_of_a_module(depth: Path) -> None:
    manifest = gtp_runtime.read_manifest(depth)
    entry = manifest.entry("model.onnx")
    assert {spec.name: spec.shape for spec in entry.answers} == {"depth": [1, 32, 32], "mean": [1, 8]}
    assert [output.kind for output in manifest.outputs.values()] == ["tensor", "tensor"]
    assert manifest.model.name == "Depth" and manifest.is_dense
    page = (depth / "report.html").read_text("utf-8")
    assert "depth, dense" in page and "mean, dense" not in page
    decoder = 16 * 48 * 8 + 16 * 8 * 64
    vit = apply(tiny_vit(num_classes=0, reg_tokens=1), replace(MEASURED, num_prop=0))
    assert manifest.macs["dense"] - manifest.macs["head"] > 0
    assert manifest.macs["head"] >= decoder
    assert len(manifest.layers) == len(vit.blocks)
    assert all(layer.nodes > 5 for layer in manifest.layers)


def test_the_graph_is_the_module_with_tokens_put_back(depth: Path) -> None:
    module = Depth().eval()
    apply(module.encoder["vit"], MEASURED, restore=True)
    with gtp_runtime.load(depth) as model, torch.inference_mode():
        images = model.prepare(model.reference().images)
        outputs = model.run_all(images)
        expected = module(torch.from_numpy(images))
        assert model.validate().kept_agreement == 1
    for name, values in expected.items():
        np.testing.assert_allclose(outputs[name], values.numpy(), atol=1e-4)


def test_the_module_stays_as_it_is(tmp_path: Path) -> None:
    module = Segmenter().eval()
    before = module(images_in_range())["logits"]
    made = exported(module, tmp_path / "out", options=ExportOptions(batch=2, input="uint8"), name="my segmenter")
    assert torch.equal(module(images_in_range())["logits"], before)
    assert [spec.shape for spec in made.manifest.entry("model.onnx").answers] == [[2, 6, 4, 4]]
    assert made.manifest.model.title == "my segmenter"
    with gtp_runtime.load(made.directory) as model:
        assert model.features([np.zeros((32, 32, 3), np.uint8)])["logits"].shape == (1, 6, 4, 4)


def test_a_schedule_is_fitted_by_the_outputs(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    settings = replace(MEASURED, num_prop=None, keep=0.8, schedule="fitted")
    options = ExportOptions(calib_data=tmp_path / "images", dense=False)
    made = exported(Segmenter(), tmp_path / "out", settings=settings, options=options, check=False)
    assert made.manifest.fitting is not None
    assert (made.manifest.fitting.measure, made.manifest.fitting.count) == ("squared_error", 8)
    assert sum(made.manifest.fitting.num_prop) > 0


def two_vits() -> nn.Module:
    module = Segmenter()
    module.other = tiny_vit()
    return module


def test_modules_that_cannot_be_exported_are_refused(tmp_path: Path) -> None:
    for module, given in (
        (OneByOne(), {}),
        (two_vits(), {}),
        (nn.Linear(3, 3), {}),
        (Segmenter(), {"backbone": "vit"}),
    ):
        with pytest.raises(UnsupportedModelError):
            exported(module, tmp_path / "out", **given)
    with pytest.raises(ConfigError, match="normalised"):
        exported(Segmenter(), tmp_path / "out", preprocessing=replace(PLAIN, std=[2.0] * 3))
    with pytest.raises(ConfigError, match="32, 32"):
        export_module(Segmenter(), torch.zeros(1, 3, 64, 64), tmp_path / "out", settings=MEASURED, preprocessing=PLAIN)
    for name in ("propagated", "images", "dense_logits"):
        with pytest.raises(ConfigError, match=name):
            named_tensors({name: torch.zeros(1, 2)})
    with pytest.raises(ConfigError, match="output"):
        exported(Segmenter(), tmp_path / "out", options=ExportOptions(output="map"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "reason"), [("samvit_base_patch16", "global blocks"), ("beit_base_patch16_224", "bias")]
)
def test_why_a_module_around_another_vit_is_refused(name: str, reason: str) -> None:
    with torch.device("meta"):
        module = nn.Sequential(timm.create_model(name, depth=3))
    with pytest.raises(UnsupportedModelError, match=reason):
        find_backbone(module)
    with pytest.raises(UnsupportedModelError, match=reason):
        find_backbone(module, "0")


def test_one_of_several_is_named() -> None:
    module = two_vits()
    path, vit = find_backbone(module, "backbone")
    assert (path, vit) == ("backbone", module.backbone)
