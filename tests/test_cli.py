"""The command line: documents for programs, lines for people, and exit codes that mean what they say."""

import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import COMMANDS, DIGITS, SEVEN, TINY, Command, Ran

from gtp_runtime import Model, read_manifest
from gtp_runtime.manifest import SCHEMA_VERSION, file_sha256, write_manifest
from gtp_runtime.reference import read_reference, write_reference

LATENCY = {"p50_ms", "p90_ms", "p95_ms", "p99_ms", "mean_ms", "cv", "throughput", "ratio", "share", "overhead"}
PARITY = {"ok", "top1_agreement", "kept_agreement", "max_abs_fraction", "cosine"}
QUICK = ("bench", "--no-footprint", "--seconds", "0.1")


def document(ran: Ran, code: int = 0) -> dict[str, Any]:
    """Stdout is one JSON document and nothing else."""
    assert ran.code == code, ran.err
    return json.loads(ran.out)


def with_other_answers(directory: Path) -> Path:
    """Let the parity pack expect other logits, with a hash that fits."""
    path = directory / "reference.npz"
    reference = read_reference(path)
    write_reference(replace(reference, outputs={"logits": np.roll(reference.answers, 1, axis=1)}), path)
    manifest = read_manifest(directory)
    entry = replace(manifest.entry("reference.npz"), sha256=file_sha256(path), size=path.stat().st_size)
    write_manifest(replace(manifest, files=manifest.files | {"reference.npz": entry}), directory)
    return directory


@pytest.mark.parametrize("name", COMMANDS)
def test_help(command: Command, name: str) -> None:
    ran = command(name, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"gtp-export {name} " in ran.out


def test_the_program_itself(command: Command) -> None:
    assert command("--version") == Ran(0, f"gtp-export {version('gtp-export')}\n", "")
    ran = command("--help")
    assert all(name in ran.out for name in (*COMMANDS, "Exit codes"))
    assert command().code == 2


def test_models(command: Command) -> None:
    ran = command("models")
    assert all(name in ran.out for name in ("digits", "deit_s", "vit_b16"))
    models = {entry["name"]: entry for entry in document(command("models", "--json"))["models"]}
    assert models["deit_s"]["settings"]["num_prop"] == 8
    assert models["deit_s"]["timm"] == "deit_small_patch16_224.fb_in1k"


def test_export(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("gtp_exporters.proof.SECONDS", 0.1)
    ran = command("export", "digits", "--num-prop", "4,4,4,4,0,0", "--json", "-o", tmp_path / "out")
    found = document(ran)
    files = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert set(files) == {"model.onnx", "dense.onnx", "reference.npz", "report.html", "model.json"}
    assert found["files"] == {name: size for name, size in files.items() if name != "model.json"}
    assert found["directory"] == str(tmp_path / "out")
    assert (found["weights"], found["notes"]) == ("pretrained", [])
    assert found["parity"]["ok"]
    assert found["parity"].keys() >= PARITY
    assert [result["file"] for result in found["latency"]] == ["dense.onnx", "model.onnx"]
    assert all(result.keys() >= LATENCY for result in found["latency"])
    manifest = read_manifest(tmp_path / "out")
    assert manifest.num_prop == [4, 4, 4, 4, 0, 0]
    assert manifest.results.keys() == {"parity", "latency"}
    assert "tracing model.onnx" in ran.err


@pytest.mark.full
def test_export_for_people(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("gtp_exporters.proof.SECONDS", 0.1)
    shutil.copytree(DIGITS / "images" / "3", tmp_path / "images" / "3")
    ran = command("export", "digits", "--no-simplify", "--data", tmp_path / "images", "-b", "4", "-q")
    assert ran.code == 0
    assert [line for line in ran.err.splitlines() if "scatter" not in line] == [], "but a note of noisy times"
    assert "parity ok on 37 images (from images)" in ran.out
    assert "wrote build/digits: model.onnx dense.onnx reference.npz report.html model.json" in ran.out
    assert ran.last == "next: gtp-export predict build/digits/model.onnx IMAGE"
    assert read_manifest(Path("build/digits")).entry("model.onnx").inputs[0].shape == [4, 3, 32, 32]


def test_validate(command: Command, digits_copy: Path) -> None:
    found = document(command("validate", digits_copy, "--json"))
    assert found.keys() >= PARITY
    assert (found["ok"], found["top1_agreement"], found["kept_agreement"], found["accuracy"]) == (True, 1.0, 1.0, None)
    assert found["file"] == str(digits_copy / "model.onnx")
    assert read_manifest(digits_copy).results["parity"]["model.onnx"]["ok"]
    ran = command("validate", digits_copy / "dense.onnx")
    assert "parity ok on 360 images" in ran.out
    assert ran.last == f"next: gtp-export bench {digits_copy / 'dense.onnx'}"


def test_validate_fails_where_answers_differ(command: Command, digits_copy: Path) -> None:
    with_other_answers(digits_copy)
    found = document(command("validate", digits_copy, "--json"), code=3)
    assert found["ok"] is False
    assert found["problems"]
    ran = command("validate", digits_copy)
    assert ran.code == 3
    assert "parity FAILED" in ran.out
    assert "gate: top-1 agreement 0.0%, limit 99%" in ran.out
    assert not read_manifest(digits_copy).results["parity"]["model.onnx"]["ok"]


def test_validate_with_accuracy(command: Command, digits_copy: Path, tmp_path: Path) -> None:
    ran = command("validate", digits_copy, "--data", DIGITS / "images", "--max-drop", "0", "--json")
    assert document(ran, code=3)["ok"] is False
    accuracy = json.loads(ran.out)["accuracy"]
    assert accuracy["images"] == 360
    assert 0.95 < accuracy["top1"] < accuracy["dense_top1"]
    assert "--max-drop allows 0" in ran.err
    shutil.copytree(DIGITS / "images" / "3", tmp_path / "images" / "3")
    ran = command("validate", digits_copy, "--data", tmp_path / "images", "--max-drop", "5")
    assert ran.code == 0
    assert f"accuracy on 37 images of {tmp_path / 'images'}" in ran.out
    assert "--max-drop needs --data" in command("validate", digits_copy, "--max-drop", "0").error


def test_max_drop_needs_classes_and_a_twin(command: Command, digits_copy: Path) -> None:
    ran = command("validate", digits_copy, "--data", SEVEN.parent, "--max-drop", "5")
    assert ran.code == 4, "nothing was compared, so no gate failed"
    assert "--max-drop" in ran.err


def test_parity_is_stored_if_accuracy_fails(command: Command, digits_copy: Path, tmp_path: Path) -> None:
    broken = tmp_path / "images" / "0"
    broken.mkdir(parents=True)
    (broken / "broken.png").write_bytes(b"no image")
    assert command("validate", digits_copy, "--data", tmp_path / "images").code == 1
    assert read_manifest(digits_copy).results["parity"]["model.onnx"]["ok"] is True
    missing = command("validate", digits_copy, "--data", tmp_path / "missing")
    assert (missing.code, "validating" in missing.err) == (1, False), "before anything is run"


def test_bench(command: Command, digits_copy: Path) -> None:
    found = document(command(*QUICK, digits_copy, "--json"))
    assert found["settings"] == {"backend": "auto", "seconds": 0.1}
    assert [(entry["name"], entry["options"]) for entry in found["backends"]] == [("onnxruntime", {"threads": 1})] * 2
    assert [Path(result["file"]).name for result in found["files"]] == ["dense.onnx", "model.onnx"]
    assert all(result.keys() >= LATENCY for result in found["files"])
    kept = read_manifest(digits_copy).results["latency"]
    assert kept.keys() == {"dense.onnx", "model.onnx"}
    assert kept["model.onnx"]["provider"] == "cpu"
    assert {result["against"] for result in kept.values()} == {"dense.onnx"}
    ran = command(*QUICK, digits_copy / "dense.onnx")
    assert ran.last == f"next: gtp-export validate {digits_copy / 'dense.onnx'}"


def test_bench_says_what_was_not_kept(command: Command, digits_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "record", lambda *arguments: False)
    ran = command(*QUICK, digits_copy)
    assert ran.code == 0
    assert "not stored" in ran.error


def test_bench_fails_over_the_budget(command: Command, digits_copy: Path) -> None:
    ran = command(*QUICK, digits_copy, "--budget-ms", "0.0001")
    assert ran.code == 5
    assert "model.onnx: p50" in ran.error and "budget of 0.0001 ms" in ran.error
    assert "dense.onnx: p50" not in ran.error, "the twin is there to compare with, not to be deployed"
    assert command(*QUICK, digits_copy, "--budget-ms", "10000").code == 0
    assert document(command(*QUICK, digits_copy, "--budget-ms", "0.0001", "--json"), 5)["files"]


@pytest.mark.filterwarnings("default::gtp_runtime.errors.RandomWeightsWarning")
@pytest.mark.full
def test_baselines(command: Command, monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path) -> None:
    monkeypatch.setattr("gtp_exporters.proof.SECONDS", 0.1)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps({"timm": TINY.timm, "gtp": TINY.gtp, "model_args": TINY.model_args}), encoding="utf-8")
    common = ("export", recipe, "--weights", "random", "-b", "3", "--no-simplify", "--no-dense", "--json")
    for method in ("drop", "tome"):
        found = document(command(*common, "--method", method, "-o", tmp_path / method))
        assert (found["parity"]["ok"], set(found["files"])) == (True, {"model.onnx", "reference.npz", "report.html"})
        assert read_manifest(tmp_path / method).entry("model.onnx").method == method
        assert read_manifest(tmp_path / method).num_prop == [3, 3]
    gtp = shutil.copytree(tiny, tmp_path / "gtp")
    paths = (gtp / "dense.onnx", gtp, tmp_path / "tome", tmp_path / "drop")
    files = document(command(*QUICK, *paths, "--json"))["files"]
    over_drop = [result["p50_ms"] / files[-1]["p50_ms"] for result in files[1:]]
    assert [result["overhead"] for result in files] == [None, *over_drop]
    assert "dense, drop, gtp, tome" in command(*common, "--method", "evit").error


def test_inspect(command: Command, digits: Path) -> None:
    found = document(command("inspect", digits, "--json"))
    assert found["schema_version"] == SCHEMA_VERSION
    assert [layer["num_prop"] for layer in found["layers"]] == [6] * 6
    ran = command("inspect", digits / "model.onnx")
    assert all(word in ran.out for word in ("pretrained", "num_prop 6", "dense.onnx", "images float32[1, 3, 32, 32]"))
    assert ran.last == f"next: gtp-export validate {digits}"


def test_predict(command: Command, digits: Path) -> None:
    found = document(command("predict", digits, SEVEN, SEVEN, "--topk", "2", "--json"))["images"]
    assert [entry["image"] for entry in found] == [str(SEVEN)] * 2
    best, second = found[0]["predictions"]
    assert (best["label"], best["index"]) == ("7", 7)
    assert best["probability"] > second["probability"]
    ran = command("predict", digits, SEVEN)
    assert [line.split()[0] for line in ran.out.splitlines() if line.strip()][:2] == [str(SEVEN), "7"]


@pytest.mark.filterwarnings("default::gtp_runtime.errors.RandomWeightsWarning")
def test_random_weights_are_said_and_must_be_allowed(command: Command, tiny: Path) -> None:
    ran = command("predict", tiny, SEVEN)
    assert ran.code == 4
    assert ran.err.splitlines()[0].startswith("warning: ")
    assert "random weights" in ran.err.splitlines()[-1]
    assert command("predict", tiny, SEVEN, "--allow-random", "--json").code == 0
    assert "(random weights)" in command("inspect", tiny).out


def test_doctor(command: Command) -> None:
    found = document(command("doctor", "--json"))
    assert found["packages"]["onnxruntime"] == version("onnxruntime")
    assert "CPUExecutionProvider" in found["providers"]
    assert {"export": [], "onnxruntime": [], "openvino": []}.items() <= found["missing"].items()
    assert found["device"]["jetpack"] is None
    ran = command("doctor")
    assert "can export models" in ran.out
    assert ran.last == "next: gtp-export models"
