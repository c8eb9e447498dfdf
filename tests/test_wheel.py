"""What a device installs: the wheel without torch proves parity, measures and predicts."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from artifacts import DIGITS, ROOT, SEVEN

PARTS = ["gtp_export", "exporters", "runtime", "models", "pyproject.toml", "README.md", "LICENSE"]
NOT_ON_A_DEVICE = ["torch", "torchvision", "timm", "onnx", "onnxscript", "onnxsim", "yaml"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(*arguments: object, cwd: Path, code: int = 0) -> str:
    command = [str(argument) for argument in arguments]
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Built from a copy, so that nothing is left in the repository; its runtime's is beside it."""
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, sources / name)
    isolation = ["--no-isolation"] if find_spec("setuptools") else []
    for place in (sources / "runtime", sources):
        run(sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", tmp_path, place, cwd=tmp_path)
    (found,) = tmp_path.glob("gtp_export-*.whl")
    return found


@pytest.fixture
def device(wheel: Path, tmp_path: Path) -> Path:
    """A fresh environment with the wheel and ONNX Runtime; returns the folder of its programs."""
    run(sys.executable, "-m", "venv", "device", cwd=tmp_path)
    programs = tmp_path / "device" / "bin"
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--find-links", wheel.parent)
    run(programs / "python", *install, "--constraint", ROOT / "constraints.txt", f"{wheel}[onnxruntime]", cwd=tmp_path)
    return programs


@pytest.mark.full
def test_the_wheel_works_on_a_device(device: Path, wheel: Path, digits_copy: Path, tmp_path: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [path for path in (ROOT / "models").rglob("*") if path.suffix in (".yaml", ".safetensors", ".png")]
    assert {str(path.relative_to(ROOT / "models")) for path in data} <= names
    assert (
        len([path for path in data if DIGITS in path.parents]) == 461
    )  # weights, 360 test images, 100 calibration images
    assert not [name for name in names if not name.startswith("gtp_")]
    assert not [name for name in names if name.startswith("gtp_runtime/")], "a file has one distribution that owns it"
    assert {f"{package}/__init__.pyi" for package in ("gtp_models", "gtp_exporters", "gtp_export")} <= names
    assert {f"{package}/py.typed" for package in ("gtp_models", "gtp_exporters", "gtp_export")} <= names

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    look = f"from importlib.util import find_spec; print([name for name in {NOT_ON_A_DEVICE} if find_spec(name)])"
    assert run(device / "python", "-c", look, cwd=elsewhere) == "[]\n"
    names_there = "import gtp_export, gtp_models; print(gtp_export.GTPConfig.__name__, gtp_export.load.__name__)"
    assert run(device / "python", "-c", names_there, cwd=elsewhere) == "GTPConfig load\n"
    command = device / "gtp-export"
    assert "parity ok on 360 images" in run(command, "validate", digits_copy, cwd=elsewhere)
    assert "dense.onnx" in run(command, "bench", digits_copy, "--seconds", "0.2", cwd=elsewhere)
    lines = run(command, "predict", digits_copy, SEVEN, "--topk", "1", cwd=elsewhere).splitlines()
    assert "7" in [line.split()[0] for line in lines]
    assert "model.onnx" in run(command, "inspect", digits_copy, cwd=elsewhere)
    assert "TensorRT is not" in run(command, "doctor", cwd=elsewhere)
    assert "cannot export models" in run(command, "doctor", cwd=elsewhere)
    assert "pip install 'gtp-export[export]'" in run(command, "export", "digits", cwd=elsewhere, code=4)
