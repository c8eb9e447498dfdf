"""Exports of timm's Eva family: static, lean, as eager PyTorch answers, and buildable."""

from pathlib import Path
from typing import Any

import pytest
import torch
from eva_models import EVAS, tiny_eva
from helpers import METHOD_CASES, settings_of
from onnx_graphs import check_answers, graph_of, operators

from gtp_exporters import EngineOptions, ExportOptions, build_engine, export
from gtp_exporters.graph.rules import simplify
from gtp_exporters.graph.trace import Traced, to_onnx
from gtp_models import Recipe, apply, build_model
from gtp_runtime import load
from gtp_runtime.errors import RandomWeightsWarning

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
GTP = {"num_prop": 3, "num_neighbours": 4}
RECIPES = {
    "EVA-02": Recipe("tiny_eva02", "a tiny EVA-02", "eva02_base_patch16_clip_224", GTP, {**ARGS, "num_classes": 5}),
    "DINOv3": Recipe("tiny_dinov3", "a tiny DINOv3", "vit_small_patch16_dinov3", GTP, ARGS),
    "PE": Recipe("tiny_pe", "a tiny PE", "vit_pe_core_tiny_patch16_384", GTP, ARGS | {"attn_pool_num_heads": 3}),
    "Sapiens2": Recipe(
        "tiny_sapiens2", "a tiny Sapiens2", "vit_base_patch16_sapiens2", GTP, ARGS | {"num_kv_heads": (3, 1)}
    ),
}
FORMS = [
    ("EVA-02", "gtp", 1),
    ("DINOv3", "gtp", 1),
    ("mixed", "gtp", 2),
    ("no prefix", "gtp-Mean", 1),
    ("post-norm", "tome", 1),
]
FULL = [(name, "gtp", batch) for name in EVAS for batch in (1, 2, 3)]
FULL += [(name, method, 2) for name in ("DINOv3", "mixed", "gated") for method in METHOD_CASES if method != "gtp"]


def check_form(name: str, method: str, batch: int) -> None:
    model = tiny_eva(name)
    apply(model, settings_of(method))
    graph = graph_of(model, batch)
    assert not {"Sin", "Cos", "ScatterND", "GatherND"} & operators(graph), "rotary embeddings are constants"
    check_answers(graph, model, batch)


@pytest.mark.parametrize(("name", "method", "batch"), FORMS)
def test_onnx_equals_eager(name: str, method: str, batch: int) -> None:
    check_form(name, method, batch)


@pytest.mark.full
@pytest.mark.parametrize(("name", "method", "batch"), FULL)
def test_onnx_equals_eager_in_every_form(name: str, method: str, batch: int) -> None:
    check_form(name, method, batch)


def test_rotation_takes_few_nodes() -> None:
    model, counts = tiny_eva("DINOv3"), []
    for rope in (model.rope, None):
        model.rope = rope
        apply(model, settings_of("gtp"))
        counts.append(len(simplify(to_onnx(Traced(model, False), 1, 20)[0])[0].graph))
    assert counts[0] - counts[1] <= 12 * len(model.blocks)  # 10 for the constant rows of the first layer


def check_export(name: str, directory: Path, batch: int) -> Path:
    exported = export(
        RECIPES[name], directory, weights="random", options=ExportOptions(batch=batch, target="tensorrt"), check=False
    )
    with pytest.warns(RandomWeightsWarning), load(directory) as model:
        assert model.validate().ok
    assert exported.manifest.model.grid == [4, 4]
    assert exported.manifest.preprocessing.crop == [32, 32]
    return directory


@pytest.mark.full
@pytest.mark.parametrize("name", RECIPES)
def test_exports_and_is_at_parity(tmp_path: Path, name: str) -> None:
    check_export(name, tmp_path / "tiny", 1)


@pytest.mark.parametrize(
    ("name", "batch"), [pytest.param(name, batch, marks=pytest.mark.full) for name in RECIPES for batch in (1, 2)]
)
def test_an_engine_builds(tmp_path: Path, name: str, batch: int) -> None:
    pytest.importorskip("tensorrt_rtx")
    directory = check_export(name, tmp_path / "tiny", batch)
    engine = build_engine(directory, flavor="rtx", options=EngineOptions(targets=("sm86",)))
    assert engine.entry.size == engine.path.stat().st_size > 100_000


def test_a_model_of_any_image_size_is_made_for_one() -> None:
    small: Any = {"embed_dim": 48, "depth": 1, "num_heads": 3}
    recipe = Recipe("tiny", "", "vit_small_patch16_dinov3", {}, small)
    first, second = (build_model(recipe.sized(size), "random") for size in (None, (64, 96)))
    assert first.sha256 == second.sha256
    assert first.model.dynamic_img_size is False
    assert first.model.patch_embed.img_size == (256, 256)
    assert second.model.patch_embed.grid_size == (4, 6)


def test_weights_of_eva_keep_their_names(tmp_path: Path) -> None:
    recipe = Recipe("tiny", "", "vit_small_patch16_dinov3", {}, {"embed_dim": 48, "depth": 1, "num_heads": 3})
    built = build_model(recipe, "random")
    torch.save(built.model.state_dict(), tmp_path / "tiny.pth")
    assert "blocks.0.gamma_1" in built.model.state_dict()
    assert build_model(recipe, str(tmp_path / "tiny.pth")).sha256 == built.sha256
