"""An export is proven before it takes its place: what fails its gates leaves the earlier one as it was."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from artifacts import TINY, Command
from helpers import METHOD_CASES, settings_of
from onnx.reference import ReferenceEvaluator
from PIL import Image
from safetensors.torch import save_file

from gtp_exporters import ExportOptions, ParityFailedError, export
from gtp_exporters.proof import UNPROVEN
from gtp_exporters.reference import make_reference
from gtp_models import ConfigError, GTPConfig, Recipe, build_model, load_recipe
from gtp_runtime import read_manifest
from gtp_runtime.errors import InputError
from gtp_runtime.manifest import Manifest, file_sha256, write_manifest
from gtp_runtime.reference import Reference

LEAN = ExportOptions(simplify=False)
ALONE = ExportOptions(simplify=False, dense=False)
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
    exported = export(TINY, tmp_path / "out", weights="random", options=ALONE, check=False)
    assert (exported.proof, exported.manifest.results) == (None, {})


BF16 = ExportOptions(simplify=False, dense=False, precision="bf16")


def test_openvino_proves_bf16(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    proof = export(TINY, tmp_path / "out", weights="random", options=BF16).proof
    assert proof is not None and proof.parity is not None
    assert proof.parity.ok, proof.parity.problems
    assert (proof.backend, proof.parity.precision, len(proof.latency)) == ("openvino", "bf16", 1)
    assert read_manifest(tmp_path / "out").results["parity"]["model.onnx"]["ok"]


def test_what_cannot_be_run_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    proof = export(TINY, tmp_path / "out", weights="random", options=BF16).proof
    assert proof is not None
    assert (proof.parity, proof.latency, proof.note) == (None, [], UNPROVEN)
    assert "pip install 'gtp-export[openvino]'" in UNPROVEN


@pytest.mark.parametrize("method", [pytest.param(name, marks=pytest.mark.full) for name in METHOD_CASES] + ["measured"])
def test_settings_of_any_method(tmp_path: Path, method: str) -> None:
    settings = GTPConfig.measured(num_prop=(3, 0)) if method == "measured" else settings_of(method)
    exported = export(TINY, tmp_path / "out", weights="random", options=LEAN, settings=settings)
    assert exported.proof is not None and exported.proof.parity is not None and exported.proof.parity.ok
    manifest = exported.manifest
    assert (manifest.method, manifest.settings) == (settings.name, settings.described())
    assert manifest.entry("model.onnx").method == settings.name
    assert manifest.entry("dense.onnx").method == "dense"


def test_settings_are_resolved_in_the_manifest(tmp_path: Path) -> None:
    asked = GTPConfig(keep=0.85, num_neighbours=4, schedule="even")
    exported = export(TINY, tmp_path / "out", weights="random", options=ALONE, settings=asked, check=False)
    manifest = exported.manifest
    assert manifest.settings == GTPConfig(num_prop=tuple(manifest.num_prop), num_neighbours=4).described()
    assert manifest.settings["preset"] == "paper"
    assert manifest.macs["backbone"] / manifest.macs["dense"] == pytest.approx(0.85, abs=0.02)
    macs = manifest.macs
    assert macs["backbone"] == macs["embed"] + macs["head"] + sum(layer.macs for layer in manifest.layers)


NOT_FINITE = "the outputs of the model in eager PyTorch are not finite, so parity cannot be proven and nothing was "


def test_weights_that_are_no_numbers_leave_the_earlier_export(tmp_path: Path, broken: Path) -> None:
    place = tmp_path / "out"
    export(TINY, place, weights="random", options=LEAN, check=False)
    before = contents(place)
    for check in (True, False):  # without a reference nothing could be proven later, either
        with pytest.raises(ParityFailedError) as caught:
            export(TINY, place, weights=str(broken), options=LEAN, check=check)
        assert str(caught.value) == f"{NOT_FINITE}written: check its weights (file, {broken.name})"
        assert "some logits are not finite" in caught.value.proof.parity.problems
        assert contents(place) == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", broken.name}


def test_answers_that_are_no_numbers_are_refused_before_anything_is_traced(
    tmp_path: Path, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def traced(*arguments: Any) -> None:
        raise AssertionError("traced")

    monkeypatch.setattr("gtp_exporters.artifacts.to_onnx", traced)
    with pytest.raises(ParityFailedError):
        export(TINY, tmp_path / "out", weights=str(broken), options=LEAN)


def test_the_manifest_is_written_once_and_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, hashed = [], []

    def write(manifest: Manifest, directory: Path) -> None:
        written.append(manifest)
        write_manifest(manifest, directory)

    def sha256(path: Path) -> str:
        hashed.append(path.name)
        return file_sha256(path)

    for name in ("pipeline.write_manifest", "artifacts.write_manifest"):
        monkeypatch.setattr(f"gtp_exporters.{name}", write)
    for name in ("artifacts.file_sha256", "graph.describe.file_sha256"):
        monkeypatch.setattr(f"gtp_exporters.{name}", sha256)
    made = export(TINY, tmp_path / "out", weights="random", options=LEAN)
    assert [made.manifest] == written
    assert sorted(hashed) == sorted(name for name in made.manifest.files if name != "report.html")
    assert {"parity", "latency"} <= made.manifest.results.keys() and "report.html" in made.manifest.files


def test_weights_that_are_no_numbers_leave_nothing_where_nothing_was(tmp_path: Path, broken: Path) -> None:
    with pytest.raises(ParityFailedError, match=NOT_FINITE):
        export(TINY, tmp_path / "deep" / "out", weights=str(broken), options=LEAN)
    assert [path.name for path in tmp_path.iterdir()] == [broken.name]


@pytest.fixture
def other_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs that answer otherwise than the eager model: the classes in another order."""

    def made(*arguments: Any) -> Reference:
        reference = make_reference(*arguments)
        return replace(reference, outputs={"logits": np.roll(reference.answers, 1, axis=1)})

    monkeypatch.setattr("gtp_exporters.artifacts.make_reference", made)


@pytest.mark.usefixtures("other_graphs")
def test_a_failed_gate_leaves_the_earlier_export(tmp_path: Path) -> None:
    place = tmp_path / "out"
    export(TINY, place, weights="random", options=LEAN, check=False)
    before = contents(place)
    with pytest.raises(ParityFailedError) as caught:
        export(TINY, place, weights="random", seed=1, options=LEAN)
    assert contents(place) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    message = str(caught.value)
    assert message.startswith("the exported graphs failed their parity gates (")
    assert f"{place}: the earlier export there is unchanged" in message
    assert "\n" not in message
    proof = caught.value.proof
    assert (proof.parity.ok, proof.parity.max_abs_fraction > 0.1) == (False, True)
    assert [result.file for result in proof.latency] == ["dense.onnx", "model.onnx"]
    assert not any(problem.startswith("dense baseline") for problem in proof.parity.problems)


@pytest.mark.usefixtures("other_graphs")
def test_a_failed_gate_puts_nothing_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(ParityFailedError):
        export(TINY, tmp_path / "deep" / "out", weights="random", options=LEAN)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("other_graphs")
def test_without_check_it_is_put_in_place(tmp_path: Path) -> None:
    exported = export(TINY, tmp_path / "out", weights="random", options=LEAN, check=False)
    assert files(exported.directory) == {"model.onnx", "dense.onnx", "reference.npz", "report.html", "model.json"}


def test_a_gate_fails_by_its_twin_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gtp_exporters.artifacts.dense_outputs", lambda model, images, *_: other_answers(images))
    with pytest.raises(ParityFailedError, match="gates .dense baseline: ") as caught:
        export(TINY, tmp_path / "out", weights="random", options=LEAN)
    assert all(problem.startswith("dense baseline: ") for problem in caught.value.proof.parity.problems)


def other_answers(images: Any) -> Any:
    return {"logits": torch.randn(len(images.pixels), 5, generator=torch.Generator().manual_seed(0)).numpy()}


def no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize("cause", ["weights", pytest.param("graphs", marks=pytest.mark.full)])
def test_the_command_exits_with_3(
    command: Command, request: pytest.FixtureRequest, tmp_path: Path, broken: Path, cause: str
) -> None:
    recipe, place = tmp_path / "tiny.yaml", tmp_path / "out"
    recipe.write_text(json.dumps({"timm": TINY.timm, "gtp": TINY.gtp, "model_args": TINY.model_args}), "utf-8")
    common = ("export", recipe, "-o", place, "--no-simplify", "--no-dense", "-q")
    assert command(*common, "--weights", "random", "--no-check").code == 0
    before = contents(place)
    if cause == "graphs":
        request.getfixturevalue("other_graphs")
    weights, said = {
        "weights": (broken, "error: the outputs of the model in eager PyTorch are not finite"),
        "graphs": ("random", "error: the exported graphs failed their parity gates ("),
    }[cause]
    ran = command(*common, "--weights", weights)
    assert ran.code == 3
    assert "parity FAILED" in ran.out
    assert said in ran.error
    assert "next:" not in ran.out
    assert "Traceback" not in ran.err
    ran = command(*common, "--weights", weights, "--json")
    assert ran.code == 3
    found = json.loads(ran.out, parse_constant=no_constant)
    assert (found["directory"], found["parity"]["ok"]) == (None, False)
    assert found["parity"]["problems"]
    assert said in ran.err.splitlines()[-1]
    assert contents(place) == before


@pytest.mark.parametrize("dense", [pytest.param(True, marks=pytest.mark.full), False])
def test_a_precision_that_fails_names_the_layers(tmp_path: Path, command: Command, dense: bool) -> None:
    """Attention logits that fp16 cannot hold."""
    state = build_model(TINY, "random").model.state_dict()
    for part in ("weight", "bias"):
        state[f"blocks.1.attn.qkv.{part}"][: 2 * len(state["cls_token"][0, 0])] *= 2e4  # queries and keys
    save_file(state, tmp_path / "large.safetensors")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps({"timm": TINY.timm, "gtp": TINY.gtp, "model_args": TINY.model_args}), "utf-8")
    common = ("export", recipe, "-o", tmp_path / "out", "--weights", tmp_path / "large.safetensors", "--no-simplify")
    options = [*common, "--precision", "fp16", "-q", *([] if dense else ["--no-dense"])]
    ran = command(*options)
    assert ran.code == 3
    assert "parity gates (fp16 ends at 65,504, and blocks.1.attn reaches 1." in ran.error
    assert ("the layers furthest from fp32: " in ran.error) == ("layers furthest from fp32" in ran.out) == dense
    layers = json.loads(command(*options, "--json").out, parse_constant=no_constant)["layers"]
    errors = {layer["layer"]: layer["error"] for layer in layers}
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert len(errors) == (10 if dense else 0), "two blocks of four products, the embedding and the head"
    assert not dense or errors["blocks.1.attn.proj"] > 10 * errors["blocks.0.mlp.fc2"]
    assert not (tmp_path / "out").exists()


SWIGLU = Recipe(
    "gated", "a gated MLP", "eva02_tiny_patch14_224", {"preset": "measured", "num_prop": (2, 0)},
    {"img_size": 56, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5},
)  # fmt: skip


def _large_norms(state: dict[str, Any]) -> None:
    """What a norm gives is too large, and the product behind it makes it small again."""
    for name in ("weight", "bias"):
        state[f"blocks.1.norm2.{name}"] *= 1e6
    state["blocks.1.mlp.fc1.weight"] *= 1e-6


def _large_gates(state: dict[str, Any]) -> None:
    """Each half of a gated MLP fits, their product does not."""
    state["blocks.1.mlp.fc1.weight"] *= 3e4
    state["blocks.1.mlp.fc2.weight"] *= 1e-6


@pytest.mark.full
@pytest.mark.parametrize(
    ("recipe", "enlarge", "place"),
    [
        (TINY, _large_norms, "blocks.1.mlp.fc1"),
        (SWIGLU, _large_gates, "blocks.1.mlp"),
    ],
    ids=["norm", "gate"],
)
def test_fp16_is_refused_where_what_stands_between_products_is_too_large(
    tmp_path: Path, recipe: Recipe, enlarge: Any, place: str
) -> None:
    state = build_model(recipe, "random").model.state_dict()
    enlarge(state)
    save_file(state, tmp_path / "large.safetensors")
    options = {"weights": str(tmp_path / "large.safetensors"), "report": False}
    with pytest.raises(ParityFailedError) as caught:
        export(recipe, tmp_path / "out", options=replace(LEAN, precision="fp16"), **options)
    assert place in str(caught.value)
    export(recipe, tmp_path / "out", options=replace(LEAN, precision="fp16"), check=False, **options)
    graph = onnx.load(tmp_path / "out" / "model.onnx")
    images = np.random.default_rng(0).normal(size=graph_shape(graph)).astype(np.float32)
    with np.errstate(all="ignore"):
        logits = ReferenceEvaluator(graph).run(["logits"], {"images": images})[0]
    assert not np.isfinite(logits).all(), "ONNX's own arithmetic, in fp16 as the graph says"
    export(recipe, tmp_path / "bf16", options=replace(LEAN, precision="bf16"), check=False, **options)


def graph_shape(graph: onnx.ModelProto) -> list[int]:
    return [axis.dim_value for axis in graph.graph.input[0].type.tensor_type.shape.dim]


def test_an_image_size_is_given_once(tmp_path: Path) -> None:
    recipe = TINY.sized((16, 24))
    manifests = [
        export(recipe, tmp_path / "recipe", weights="random", options=ALONE, check=False).manifest,
        export(TINY, tmp_path / "size", weights="random", options=ALONE, check=False, img_size=(16, 24)).manifest,
    ]
    for manifest in manifests:
        assert manifest.model.grid == [4, 6]
        assert manifest.preprocessing.crop == [16, 24]
        assert manifest.entry("model.onnx").inputs[0].shape == [1, 3, 16, 24]
    assert manifests[0] == manifests[1]


@pytest.mark.full
def test_the_size_of_a_timm_model_chooses_its_settings(tmp_path: Path) -> None:
    by_recipe = export(
        load_recipe("timm:test_vit", (64, 64)), tmp_path / "a", weights="random", options=ALONE, check=False
    )
    by_name = export("timm:test_vit", tmp_path / "b", weights="random", options=ALONE, check=False, img_size=(64, 64))
    assert by_recipe.manifest == by_name.manifest
    assert by_name.manifest.num_prop == [0, 2, 3, 2, 2, 3]


def test_settings_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for settings in (GTPConfig(num_prop=99), GTPConfig(num_prop=(1, 2, 3), num_neighbours=4), GTPConfig(macs=2)):
        with pytest.raises(ConfigError):
            export(TINY, tmp_path / "out", weights="random", settings=settings)
    assert not list(tmp_path.iterdir())


def test_folders_that_are_no_classes_are_said(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), "red").save(tmp_path / "data" / name / "0.png")
    options = ExportOptions(simplify=False, data=tmp_path / "data")
    manifest = export(TINY, tmp_path / "out", weights="random", options=options, check=False).manifest
    (note,) = manifest.notes
    assert note.startswith("the reference has no classes: the sub-folders of ")
    assert "cats, dogs" in note


@pytest.mark.parametrize("threads", ["2", -1, 100_000])
def test_threads_are_checked_before_anything_is_done(tmp_path: Path, threads: Any) -> None:
    with pytest.raises(InputError, match=f"threads={threads!r}: give"):
        export("no such model", tmp_path / "out", threads=threads)
