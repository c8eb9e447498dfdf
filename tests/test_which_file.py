"""Every result names the file, the backend and the device that answered; a fallback is a warning."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from artifacts import DIGITS, ROOT, SEVEN, Command
from test_cli import document
from test_fallback import engine, opened, refuse  # noqa: F401 - fixtures

import gtp_runtime
from gtp_runtime.__main__ import main
from gtp_runtime.errors import BackendMissingError

CPU = {"backend": "onnxruntime", "device": "CPU"}


def named(found: dict[str, Any], file: Path, fallback: str = "") -> bool:
    assert fallback in found["fallback"] and bool(fallback) == bool(found["fallback"])
    return bool(CPU.items() <= found.items()) and found["file"] == str(file)


def test_results_name_what_answered(command: Command, digits: Path) -> None:
    graph = digits / "model.onnx"
    assert named(document(command("validate", digits, "--json")), graph)
    assert named(document(command("predict", graph, SEVEN, "--json")), graph)
    files = document(command("bench", graph, "--seconds", "0", "--no-footprint", "--json"))["files"]
    assert [(file["file"], file["device"]) for file in files] == [
        (str(digits / "dense.onnx"), "CPU"),
        (str(graph), "CPU"),
    ]
    for ran in (command("validate", digits), command("bench", graph, "--seconds", "0", "--no-footprint")):
        assert "onnxruntime" in ran.out and "on CPU" in ran.out and "model.onnx" in ran.out
    assert "model.onnx with onnxruntime" in command("predict", graph, SEVEN).error


def test_a_fallback_is_a_warning(command: Command, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    refuse(monkeypatch, "tensorrt", BackendMissingError("TensorRT is not here"))
    ran = command("validate", engine)
    assert ran.code == 0
    assert "warning:" in ran.error and "model.engine" in ran.error and "TensorRT is not here" in ran.error
    assert ran.out.index("model.onnx with onnxruntime") < ran.out.index("parity ok")
    assert named(document(command("validate", engine, "--json")), engine / "model.onnx", "TensorRT is not here")


@pytest.mark.parametrize("name", ["validate", "predict"])
def test_a_directorys_engine_for_tensorrt(command: Command, engine: Path, opened: list[str], name: str) -> None:  # noqa: F811
    images = [SEVEN] if name == "predict" else []
    found = document(command(name, engine, *images, "--backend", "tensorrt", "--json"))
    assert found["file"] == str(engine / "model.engine")
    assert opened == ["model.engine tensorrt"]


def test_what_was_measured_is_kept_with_device_and_date(command: Command, digits_copy: Path) -> None:
    assert command("validate", digits_copy, "--data", DIGITS / "images").code == 0
    results = gtp_runtime.read_manifest(digits_copy).results
    for kind in ("parity", "accuracy"):
        found = results[kind]["model.onnx"]
        assert CPU.items() <= found.items() and found["date"].startswith("20")


def runtime_alone(tmp_path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``python -m gtp_runtime`` where only gtp_runtime can be imported, of the project's packages."""
    shutil.copytree(ROOT / "runtime" / "gtp_runtime", tmp_path / "alone" / "gtp_runtime", dirs_exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "alone")}
    hide = "import sys, runpy; sys.meta_path.insert(0, Hidden()); "
    code = (
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('gtp_export', 'gtp_exporters', 'gtp_models', *HIDDEN):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "import sys\n"
        "HIDDEN = sys.argv.pop(1).split(',')\n"
        f"{hide}sys.argv[0] = 'gtp_runtime'; runpy.run_module('gtp_runtime', run_name='__main__')"
    )
    given = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)


def test_the_runtime_alone(digits_copy: Path, tmp_path: Path) -> None:
    ran = runtime_alone(tmp_path, "-", "bench", digits_copy, "--seconds", "0", "--json")
    files = json.loads(ran.stdout)["files"]
    assert [Path(file["file"]).name for file in files] == ["dense.onnx", "model.onnx"], ran.stderr
    ran = runtime_alone(tmp_path, "-", "validate", digits_copy, "--data", DIGITS / "images", "--json")
    found = json.loads(ran.stdout)
    assert named(found, digits_copy / "model.onnx")
    assert found["accuracy"]["top1"] > 0.9 and found["accuracy"]["dense_top1"] > 0.9
    ran = runtime_alone(tmp_path, "-", "bench", digits_copy, "--seconds", "0", "--budget-ms", "0.00001")
    assert ran.returncode == 5 and "model.onnx with onnxruntime" in ran.stdout


@pytest.mark.parametrize(("package", "arguments"), [("onnxruntime", ()), ("openvino", ("--backend", "openvino"))])
def test_its_hints_name_its_own_extras(
    digits_copy: Path, tmp_path: Path, package: str, arguments: tuple[str, ...]
) -> None:
    ran = runtime_alone(tmp_path, package, "validate", digits_copy / "model.onnx", *arguments)
    assert ran.returncode == 4
    assert f"gtp-export-runtime[{package}]" in ran.stderr


def test_labels_need_data(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["validate", str(digits), "--class-order", "timm"])
    assert stopped.value.code == 2 and "--data" in capsys.readouterr().err
