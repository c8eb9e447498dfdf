"""Exports that give every patch: patches and maps, of the last layer or of several."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifacts import SEVEN, Command
from eva_models import tiny_eva
from helpers import TINY_RECIPE, settings_of, tiny_vit
from torch import nn

import gtp_runtime
from gtp_exporters import EngineOptions, ExportOptions, LimitError, build_engine, export
from gtp_models import ConfigError, GTPConfig, apply, build_model
from gtp_models.heads import without_head
from gtp_runtime import Manifest, read_manifest
from gtp_runtime.errors import ImageError, NoClassesError, RandomWeightsError

MEASURED = GTPConfig(num_prop=(4, 0, 5), selection="Regeneration", graph="Nearest", propagation="MergeNorm")
OTHERS = ("gtp", "gtp-Mean", "drop")
pytestmark = pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")


def exported(
    place: Path, output: str = "map", settings: Any = MEASURED, check: bool = False, **options: Any
) -> Manifest:
    made = ExportOptions(output=output, **options)
    return export(
        TINY_RECIPE, place, weights="random", options=made, settings=settings, check=check, report=False
    ).manifest


def answers(manifest: Manifest, name: str = "model.onnx") -> dict[str, list[int]]:
    return {spec.name: spec.shape for spec in manifest.entry(name).answers}


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("maps") / "tiny"
    exported(place, layers=(0, 1, 2), check=True)
    return place


def test_what_is_written(maps: Path) -> None:
    manifest = read_manifest(maps)
    assert answers(manifest) == {"map_0": [1, 24, 4, 4], "map_1": [1, 24, 4, 4], "map_2": [1, 24, 4, 4]}
    assert answers(manifest) == answers(manifest, "dense.onnx")
    assert [(output.kind, output.layer, output.stride) for output in manifest.outputs.values()] == [
        ("map", 0, [8, 8]),
        ("map", 1, [8, 8]),
        ("map", 2, [8, 8]),
    ]
    assert manifest.is_dense and manifest.gives_features and manifest.macs["head"] == 0


def test_files_answer_as_pytorch(maps: Path) -> None:
    with gtp_runtime.load(maps) as model:
        report = model.validate()
        assert report.ok and report.kept_agreement == 1
        assert list(report.outputs) == ["map_0", "map_1", "map_2"]
        assert model.run(model.sample()).shape == (1, 24, 4, 4)
        with pytest.raises(NoClassesError):
            model.predict(np.zeros((32, 32, 3), np.uint8))
        pack = model.reference()
    with gtp_runtime.load(maps / "dense.onnx") as dense:
        assert dense.validate().ok
    assert pack.dense_outputs is not None
    same = {name: np.abs(pack.outputs[name] - pack.dense_outputs[name]).max() for name in pack.outputs}
    assert same["map_0"] > 0 and same["map_2"] > 0


@pytest.mark.parametrize("method", [pytest.param(name, marks=pytest.mark.full) for name in ("tome", *OTHERS)])
def test_every_method(tmp_path: Path, method: str) -> None:
    manifest = exported(tmp_path / "out", "patches", settings_of(method, 2), check=True, dense=False)
    assert answers(manifest) == {"patches": [1, 16, 24]}


@pytest.mark.full
def test_batches_and_pixels(tmp_path: Path) -> None:
    manifest = exported(tmp_path / "out", "map", check=True, batch=2, input="uint8")
    assert answers(manifest) == {"map": [2, 24, 4, 4]}


@pytest.mark.full
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8_weights"])
def test_precisions(tmp_path: Path, precision: str) -> None:
    manifest = exported(tmp_path / "out", "map", settings_of("tome", 2), check=True, precision=precision)
    assert manifest.entry("model.onnx").precision == precision


def test_earlier_layers_end_the_model(tmp_path: Path) -> None:
    manifest = exported(tmp_path / "out", layers=(1,), settings=replace(MEASURED, num_prop=(4, 2)))
    assert (len(manifest.layers), answers(manifest)) == (2, {"map_1": [1, 24, 4, 4]})
    with pytest.raises(ConfigError, match="layer 3"):
        exported(tmp_path / "other", layers=(1, 3))
    for wrong in ((2, 1), (1, 1), (-1,), (0.5,)):
        with pytest.raises(LimitError, match="layers"):
            ExportOptions(output="map", layers=wrong)  # type: ignore[arg-type]
    with pytest.raises(LimitError, match="--output map"):
        ExportOptions(layers=(1,))


@pytest.mark.full
def test_a_module_in_hand(tmp_path: Path) -> None:
    model = tiny_vit(global_pool="map", class_token=False)
    model.pretrained_cfg = {"architecture": "vit_tiny_patch16_224", "input_size": (3, 32, 32), "mean": (0.5,) * 3}
    apply(model, MEASURED)
    options = ExportOptions(output="patches", dense=False)
    made = export(model, tmp_path / "out", options=options, report=False)
    assert made.proof is not None and made.proof.parity is not None and made.proof.parity.ok
    assert isinstance(model.attn_pool, nn.Module)
    assert len(model.blocks) == 3


@pytest.mark.full
def test_rotary_models(tmp_path: Path) -> None:
    model = tiny_eva("DINOv3")
    model.pretrained_cfg = {"architecture": "vit_small_patch16_dinov3", "input_size": (3, 32, 32), "mean": (0.5,) * 3}
    apply(model, MEASURED)
    made = export(model, tmp_path / "out", options=ExportOptions(output="map", layers=(0, 2)), report=False)
    assert made.proof is not None and made.proof.parity is not None and made.proof.parity.ok
    assert list(answers(made.manifest)) == ["map_0", "map_2"]


@pytest.mark.full
def test_an_engine_is_built_from_it(maps: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    place = tmp_path / "out"
    exported(place, layers=(1, 2), target="tensorrt")
    engine = build_engine(place, flavor="rtx", options=EngineOptions(targets=("sm86",)))
    assert list(answers(read_manifest(place), engine.path.name)) == ["map_1", "map_2"]


@pytest.mark.full
def test_on_the_command_line(tmp_path: Path, command: Command) -> None:
    words = ("--output", "map", "--layers", "2,5", "--no-check", "--no-report", "--schedule", "steps:2")
    ran = command("export", "digits", *words, "-o", tmp_path / "out")
    assert ran.code == 0
    assert list(answers(read_manifest(tmp_path / "out"))) == ["map_2", "map_5"]
    assert command("export", "digits", "--output", "map", "--layers", "5,2").code == 2
    assert command("export", "digits", "--layers", "2,5").code != 0


def test_torch_sees_the_same(maps: Path) -> None:
    """The graph's maps are those of a patched timm model."""
    model = build_model(without_head(TINY_RECIPE), "random").model
    with gtp_runtime.load(maps) as loaded:
        images = loaded.prepare(loaded.reference().images)[:2]
        outputs = loaded.run_all(images)
    apply(model, MEASURED, restore=True)
    with torch.inference_mode():
        layers = model.get_intermediate_layers(torch.from_numpy(images), n=[0, 1, 2], reshape=True, norm=True)
    for name, layer in zip(("map_0", "map_1", "map_2"), layers, strict=True):
        np.testing.assert_allclose(outputs[name], layer.numpy(), atol=1e-4)


def test_features_of_images(maps: Path) -> None:
    with gtp_runtime.load(maps) as model:
        two = [str(SEVEN)] * 2
        outputs = model.features(two, allow_random=True)
        assert {name: values.shape for name, values in outputs.items()} == dict.fromkeys(
            ("map_0", "map_1", "map_2"), (2, 24, 4, 4)
        )
        each = [answer for _, answer in model.features_each([*two, "nowhere.png"], allow_random=True)]
        assert isinstance(each[1], dict)
        assert np.array_equal(each[1]["map_2"], outputs["map_2"][1])
        assert isinstance(each[2], ImageError)
        with pytest.raises(RandomWeightsError):
            model.features(two)


@pytest.mark.parametrize("form", ["npz", "jsonl"])
def test_embed(maps: Path, tmp_path: Path, command: Command, form: str) -> None:
    file = tmp_path / f"features.{form}"
    ran = command("embed", maps, SEVEN, tmp_path / "nowhere.png", SEVEN, "-o", file, "--allow-random")
    assert ran.code == 1
    if form == "npz":
        arrays = np.load(file)
        assert arrays["image"].tolist() == [str(SEVEN)] * 2
        assert arrays["map_1"].shape == (2, 24, 4, 4)
    else:
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        assert [line["image"] for line in lines] == [str(SEVEN)] * 2
        assert np.array(lines[0]["map_1"]).shape == (24, 4, 4)


def test_embed_refuses(maps: Path, digits: Path, tmp_path: Path, command: Command) -> None:
    file = tmp_path / "features.npz"
    file.write_bytes(b"earlier")
    assert command("embed", digits, SEVEN, "-o", file).code == 2
    assert command("embed", maps, tmp_path / "nowhere.png", "-o", file, "--allow-random").code == 1
    assert command("embed", maps, SEVEN, "-o", tmp_path / "features.csv", "--allow-random").code == 2
    assert command("embed", SEVEN, maps, "-o", file).code == 2
    assert file.read_bytes() == b"earlier"
