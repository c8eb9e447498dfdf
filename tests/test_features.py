"""Exports without a classifier: features come out, parity goes by their direction, and classes are refused kindly."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from artifacts import SEVEN, TINY, Command
from helpers import images_for, settings_of, tiny_vit
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled

import gtp_runtime
from gtp_exporters import EngineOptions, ExportOptions, build_engine, export
from gtp_models import ConfigError, build_model
from gtp_models.heads import gives_features, projects, without_head
from gtp_runtime import Manifest, read_manifest
from gtp_runtime.errors import NoClassesError
from gtp_runtime.parity import compare
from gtp_runtime.reference import read_reference

GAP = {"class_token": False}
POOLINGS: dict[str, dict[str, Any]] = {
    "avg": {**GAP, "global_pool": "avg", "reg_tokens": 1},
    "map": {**GAP, "global_pool": "map"},
    "avgmax": {**GAP, "global_pool": "avgmax"},
    "max": {**GAP, "global_pool": "max"},
    "prr": {"global_pool": "prr"},
}  # "token" is what the others of these tests have
QUICK = 1
pytestmark = pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")


def exported(place: Path, model_args: dict[str, Any] | None = None, method: str = "gtp", **options: Any) -> Manifest:
    recipe = replace(TINY, model_args=TINY.model_args | (model_args or {}))
    made = ExportOptions(**{"output": "features"} | options)
    return export(recipe, place, weights="random", options=made, settings=settings_of(method), check=False).manifest


def shapes(manifest: Manifest, name: str) -> list[tuple[str, list[int], str]]:
    return [(spec.name, spec.shape, spec.dtype) for spec in manifest.entry(name).outputs]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("features") / "tiny"
    exported(place)
    return place


def test_what_is_written(features: Path) -> None:
    manifest = read_manifest(features)
    assert shapes(manifest, "model.onnx") == [("features", [1, 24], "float32"), ("propagated", [1, 6], "int32")]
    assert shapes(manifest, "dense.onnx") == [("features", [1, 24], "float32")]
    assert (manifest.model.num_classes, manifest.labels, manifest.macs["head"]) == (0, None, 0)
    with np.load(features / "reference.npz") as pack:
        assert {"features", "dense_features"} <= set(pack.files)
        assert "logits" not in pack.files
    assert read_reference(features / "reference.npz").output == "features"


def some(names: Iterable[Any]) -> list[Any]:
    """The first of these, and the others in `make test-full`."""
    return [pytest.param(name, marks=pytest.mark.full) if i >= QUICK else name for i, name in enumerate(names)]


@pytest.mark.parametrize("pooling", some(POOLINGS))
def test_every_pooling(tmp_path: Path, pooling: str) -> None:
    exported(tmp_path / "out", POOLINGS[pooling], simplify=False)
    for name in ("model.onnx", "dense.onnx"):
        with gtp_runtime.load(tmp_path / "out" / name, threads=1) as model:
            report = model.validate()
            assert report.ok, report.problems
            assert report.cosine > 0.99999


@pytest.mark.parametrize(
    "options",
    some(
        [
            {"precision": "fp16", "simplify": False},
            {"input": "uint8", "batch": 2, "dense": False},
            {"method": "gtp-None"},
            {"method": "tome", "dense": False},
            {"method": "gtp-Mean", "trace": False},
            {"method": "dense"},
        ]
    ),
    ids=str,
)
def test_with_other_options(tmp_path: Path, options: dict[str, Any]) -> None:
    exported(tmp_path / "out", **options)
    with gtp_runtime.load(tmp_path / "out", threads=1) as model:
        assert model.validate().ok
        assert model.run(model.sample()).shape == (model.batch, 24)
        assert model.benchmark(seconds=0).p50_ms > 0


@pytest.mark.parametrize("overrides", [{}, {"kind": VisionTransformerDistilled}, *POOLINGS.values()])
def test_num_classes_0_is_timms_reset_classifier(overrides: dict[str, Any]) -> None:
    model, bare = tiny_vit(**overrides), tiny_vit(**overrides, num_classes=0)
    model.reset_classifier(0)
    bare.load_state_dict(model.state_dict())
    images = images_for(model)
    assert torch.equal(model(images), bare(images))


def test_classes_are_refused_kindly(features: Path) -> None:
    with gtp_runtime.load(features, threads=1) as model, pytest.raises(NoClassesError, match=r"tiny .*classes"):
        model.predict(SEVEN, allow_random=True)


def test_commands(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("gtp_exporters.proof.SECONDS", 0.1)
    ran = command("export", "digits", "--output", "features", "--schedule", "steps:2", "-o", tmp_path / "out")
    assert ran.code == 0
    assert "(head.bias, head.weight)" in ran.err
    assert "sub-folders" not in ran.err, "features have no classes that images could be named by"
    assert "parity ok on 360 images (the recipe's own): kept sets agree on" in ran.out
    assert "cosine to the dense model's features" in ran.out
    assert ran.last == f"next: gtp-export embed {tmp_path / 'out'}/model.onnx IMAGES -o features.npz"
    found = json.loads(command("validate", tmp_path / "out", "--json").out)
    assert (found["ok"], found["top1_agreement"], found["kl"], found["top1"]) == (True, None, None, None)
    assert 0.9 < found["dense_cosine"] < 1
    ran = command("predict", tmp_path / "out", SEVEN, "-q")
    assert (ran.code, ran.out) == (2, "")
    assert "digits" in ran.err


def test_a_model_without_classifier_says_so(tmp_path: Path) -> None:
    recipe = without_head(TINY)
    options = ExportOptions(dense=False, simplify=False)
    done = export(recipe, tmp_path / "out", weights="random", options=options, check=False)
    said = "vit_tiny_patch16_224 has no classifier: its output is features (24 values per image)"
    assert done.manifest.notes == [said]
    assert read_manifest(tmp_path / "out").notes == [said]
    with pytest.raises(ConfigError, match="no classifier.*--output"):
        export(recipe, tmp_path / "other", weights="random", options=ExportOptions(output="logits"))


def test_a_file_without_classifier_will_do(tmp_path: Path) -> None:
    bare = build_model(without_head(TINY), "random").model.state_dict()
    other = tiny_vit(**TINY.model_args | {"num_classes": 7}).state_dict()
    for state in (bare, other):
        save_file(state, tmp_path / "backbone.safetensors")
        built = build_model(without_head(TINY), str(tmp_path / "backbone.safetensors"))
        assert built.model.num_classes == 0
        assert bool(built.notes) is (state is other)


def test_unpooled_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"global_pool=''.*model_args: \{global_pool: avg\}"):
        exported(tmp_path / "out", {"global_pool": ""})


@pytest.mark.parametrize(
    ("name", "projecting"),
    [
        ("vit_base_patch16_clip_224.openai", True),
        ("vit_base_patch16_clip_224", False),
        ("vit_large_patch14_clip_224.openai_ft_in12k", False),
        ("vit_base_patch32_clip_quickgelu_224", True),
        ("vit_huge_patch14_clip_378", True),
        ("vit_pe_core_small_patch16_384", True),
        ("eva02_large_patch14_clip_224", True),
        ("vit_base_patch16_224.augreg_in21k", False),
        ("vit_base_patch16_siglip_224", False),
    ],
)
def test_clips_projection_is_no_classifier(name: str, projecting: bool) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert projects(model, name) is projecting
    features, said = gives_features(model, name)
    assert features is (projecting or not model.num_classes)
    assert bool(said) is features
    model.reset_classifier(10)
    assert not projects(model, name)


def test_features_are_gated_by_direction_and_error() -> None:
    expected = np.random.default_rng(0).normal(0, 1, (4, 64)).astype(np.float32)
    report = compare(expected, expected, dense=expected * 2, classes=False)
    assert report.ok
    assert (report.top1_agreement, report.kl, report.dense_cosine) == (None, None, pytest.approx(1))
    turned = expected + np.float32(0.1)
    assert [problem.split()[0] for problem in compare(turned, expected, classes=False).problems] == [
        "feature",
        "cosine",
    ]
    broken = compare(expected * np.nan, expected, classes=False)
    assert broken.problems[0] == "some features are not finite"


def test_the_graph_is_named(features: Path) -> None:
    assert [output.name for output in onnx.load(features / "dense.onnx").graph.output] == ["features"]


def test_an_engine_has_the_same_outputs(features: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    place = Path(shutil.copytree(features, tmp_path / "tiny"))
    engine = build_engine(place, precision="fp16", flavor="rtx", options=EngineOptions(targets=("sm86",)))
    assert [spec.name for spec in engine.entry.outputs] == ["features", "propagated"]
    assert shapes(read_manifest(place), "model.engine") == shapes(read_manifest(place), "model.onnx")
