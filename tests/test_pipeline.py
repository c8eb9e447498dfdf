"""An export is proven before it takes its place: what fails its gates leaves the earlier one as it was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts import TINY, Command
from helpers import METHOD_CASES, settings_of
from safetensors.torch import save_file

from gtp_exporters import ExportOptions, ParityFailedError, artifacts, export
from gtp_exporters.proof import UNPROVEN
from gtp_models import ConfigError, GTPConfig, build_model, load_recipe
from gtp_runtime import read_manifest

LEAN = ExportOptions(simplify=False)
pytestmark = [
    pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning"),
    pytest.mark.usefixtures("short_timing"),
]


@pytest.fixture
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gtp_exporters.proof.SECONDS", 0.02)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Weights whose every answer is no number."""
    state = build_model(TINY, "random").model.state_dict()
    state["head.bias"] = torch.full_like(state["head.bias"], torch.nan)
    save_file(state, tmp_path / "broken.safetensors")
    return tmp_path / "broken.safetensors"


@pytest.fixture
def other_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the reference hold answers of another model."""
    plain = artifacts.make_reference

    def make(model: Any, images: Any, *others: Any) -> Any:
        return replace(plain(model, images, *others), answers=other_answers(images))

    monkeypatch.setattr(artifacts, "make_reference", make)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def files(directory: Path) -> set[str]:
    """What the export wrote; the lock of the directory may stay."""
    return {path.name for path in directory.glob("*") if not path.name.startswith(".")}


def test_the_proof_is_kept(tmp_path: Path) -> None:
    exported = export(TINY, tmp_path / "out", weights="random", options=LEAN)
    assert exported.proof is not None and exported.proof.parity is not None
    assert exported.proof.parity.ok, exported.proof.parity.problems
    assert [result.file for result in exported.proof.latency] == ["dense.onnx", "model.onnx"]
    results = read_manifest(exported.directory).results
    assert exported.manifest.results == results
    for kind in ("parity", "latency"):
        assert results[kind].keys() == {"model.onnx", "dense.onnx"}
    assert all(entry["ok"] for entry in results["parity"].values())


def test_without_proof(tmp_path: Path) -> None:
    exported = export(TINY, tmp_path / "out", weights="random", options=LEAN, check=False)
    assert (exported.proof, exported.manifest.results) == (None, {})


def test_what_cannot_be_run_here_is_said(tmp_path: Path) -> None:
    options = ExportOptions(simplify=False, dense=False, precision="bf16")
    proof = export(TINY, tmp_path / "out", weights="random", options=options).proof
    assert proof is not None
    assert (proof.parity, proof.latency, proof.note) == (None, [], UNPROVEN)


@pytest.mark.parametrize("method", [pytest.param(name, marks=pytest.mark.full) for name in METHOD_CASES] + ["measured"])
def test_settings_of_any_method(tmp_path: Path, method: str) -> None:
    settings = GTPConfig.measured(num_prop=(3, 0)) if method == "measured" else settings_of(method)
    exported = export(TINY, tmp_path / "out", weights="random", options=LEAN, settings=settings)
    assert exported.proof is not None and exported.proof.parity is not None and exported.proof.parity.ok
    manifest = exported.manifest
    assert (manifest.method, manifest.settings) == (settings.name, settings.to_dict())
    assert manifest.entry("model.onnx").method == settings.name
    assert manifest.entry("dense.onnx").method == "dense"


def test_settings_are_resolved_in_the_manifest(tmp_path: Path) -> None:
    asked = GTPConfig(keep=0.8, num_neighbours=4, schedule="early")
    exported = export(TINY, tmp_path / "out", weights="random", options=LEAN, settings=asked, check=False)
    manifest = exported.manifest
    assert manifest.settings == GTPConfig(num_prop=tuple(manifest.num_prop), num_neighbours=4).to_dict()
    assert manifest.macs["backbone"] / manifest.macs["dense"] == pytest.approx(0.8, abs=0.02)
    assert sum(layer.macs for layer in manifest.layers) == sum(
        manifest.macs[name] * sign for name, sign in (("backbone", 1), ("embed", -1), ("head", -1))
    )


def test_weights_with_nan_leave_the_earlier_export(tmp_path: Path, broken: Path) -> None:
    place = tmp_path / "out"
    export(TINY, place, weights="random", options=LEAN, check=False)
    before = contents(place)
    for check in (True, False):
        with pytest.raises(ParityFailedError, match="own answers are not finite on 8 of 8 images") as caught:
            export(TINY, place, weights=str(broken), options=LEAN, check=check)
        assert caught.value.proof is None
    assert contents(place) == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", broken.name}


def test_a_failed_gate_leaves_the_earlier_export(tmp_path: Path, other_graphs: None) -> None:
    place = tmp_path / "out"
    export(TINY, place, weights="random", options=LEAN, check=False)
    before = contents(place)
    with pytest.raises(ParityFailedError) as caught:
        export(TINY, place, weights="random", options=LEAN)
    assert contents(place) == before
    message = str(caught.value)
    assert message.startswith("the exported graphs failed their parity gates (")
    assert f"were not put into {place}: the earlier export there is as it was; --no-check exports without" in message
    assert "\n" not in message
    assert any("cosine" in problem for problem in caught.value.proof.parity.problems)


def test_a_failed_gate_puts_nothing_where_nothing_was(tmp_path: Path, other_graphs: None) -> None:
    with pytest.raises(ParityFailedError, match="nothing was written there"):
        export(TINY, tmp_path / "deep" / "out", weights="random", options=LEAN)
    assert not list(tmp_path.iterdir())


def test_a_gate_fails_by_its_twin_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gtp_exporters.artifacts.dense_answers", lambda model, images, *_: other_answers(images))
    with pytest.raises(ParityFailedError, match="gates .dense twin: ") as caught:
        export(TINY, tmp_path / "out", weights="random", options=LEAN)
    assert all(problem.startswith("dense twin: ") for problem in caught.value.proof.parity.problems)


def other_answers(images: Any) -> Any:
    return torch.randn(len(images.pixels), 5, generator=torch.Generator().manual_seed(0)).numpy()


def test_without_check_it_is_put_in_place(tmp_path: Path, other_graphs: None) -> None:
    exported = export(TINY, tmp_path / "out", weights="random", options=LEAN, check=False)
    assert files(exported.directory) == {"model.onnx", "dense.onnx", "reference.npz", "model.json"}


def no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.filterwarnings("default::gtp_runtime.errors.RandomWeightsWarning")
def test_the_command_exits_with_3(command: Command, tmp_path: Path, broken: Path, other_graphs: None) -> None:
    recipe, place = tmp_path / "tiny.yaml", tmp_path / "out"
    recipe.write_text(json.dumps({"timm": TINY.timm, "gtp": TINY.gtp, "model_args": TINY.model_args}), encoding="utf-8")
    common = ("export", recipe, "-o", place, "--no-simplify", "-q", "--weights")
    assert command(*common, "random", "--no-check").code == 0
    before = contents(place)
    ran = command(*common, "random")
    assert ran.code == 3
    assert "parity FAILED" in ran.out
    assert "error: the exported graphs failed their parity gates (" in ran.error
    found = json.loads(command(*common, "random", "--json").out, parse_constant=no_constant)
    assert (found["directory"], found["parity"]["ok"]) == (None, False)
    ran = command(*common, broken, "--json")
    assert (ran.code, len(ran.err.splitlines())) == (3, 1)
    assert "own answers are not finite" in ran.err
    assert json.loads(ran.out, parse_constant=no_constant)["parity"] is None
    assert contents(place) == before


def test_an_image_size_is_given_once(tmp_path: Path) -> None:
    recipe = TINY.sized((16, 24))
    manifests = [
        export(recipe, tmp_path / "recipe", weights="random", options=LEAN, check=False).manifest,
        export(TINY, tmp_path / "size", weights="random", options=LEAN, check=False, img_size=(16, 24)).manifest,
    ]
    for manifest in manifests:
        assert manifest.model.grid == [4, 6]
        assert manifest.preprocessing.crop == [16, 24]
        assert manifest.entry("model.onnx").inputs[0].shape == [1, 3, 16, 24]
    assert manifests[0] == manifests[1]


def test_the_size_of_a_timm_model_chooses_its_settings(tmp_path: Path) -> None:
    by_recipe = export(
        load_recipe("timm:test_vit", (64, 64)), tmp_path / "a", weights="random", options=LEAN, check=False
    )
    by_name = export("timm:test_vit", tmp_path / "b", weights="random", options=LEAN, check=False, img_size=(64, 64))
    assert by_recipe.manifest == by_name.manifest
    assert by_name.manifest.num_prop == [2, 1, 2, 2, 1, 2]


def test_settings_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for settings in (GTPConfig(num_prop=99), GTPConfig(num_prop=(1, 2, 3), num_neighbours=4), GTPConfig(macs=2)):
        with pytest.raises(ConfigError):
            export(TINY, tmp_path / "out", weights="random", settings=settings)
    assert not list(tmp_path.iterdir())
