"""The runtime inside of a zip application and of a program that PyInstaller froze has all of its modules."""

import json
import os
import subprocess
import sys
import zipfile
from modulefinder import ModuleFinder
from pathlib import Path

import pytest
from artifacts import ROOT, SEVEN

from gtp_runtime import _HOMES
from gtp_runtime.backends import BACKENDS

RUNTIME = ROOT / "runtime"
APPLICATION = """
import json, sys
import gtp_runtime
from gtp_runtime.backends import BACKENDS
from gtp_runtime.fleet.node import code_digests

with gtp_runtime.load(sys.argv[1], threads=1) as model:
    label = model.predict([sys.argv[2]])[0][0].label
    ok = model.validate().ok
print(json.dumps([gtp_runtime.__file__, list(BACKENDS), label, ok, code_digests()["gtp_runtime"]]))
"""
TOO_LARGE = ("torch", "torchvision", "timm", "onnx", "openvino", "tensorrt", "ray", "scipy", "matplotlib")
OTHERS = ("gtp_export", "gtp_exporters", "gtp_models")


def modules_of(package: str) -> set[str]:
    paths = (RUNTIME / package).rglob("*.py")
    return {".".join(path.relative_to(RUNTIME).with_suffix("").parts).removesuffix(".__init__") for path in paths}


def run(command: list[str], **environment: str) -> list[object]:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: list[object] = json.loads(done.stdout)
    return answer


def test_a_zip_application(digits: Path, tmp_path: Path) -> None:
    archive, application = tmp_path / "app.zip", tmp_path / "app.py"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted((RUNTIME / "gtp_runtime").rglob("*.py")):
            packed.write(path, path.relative_to(RUNTIME))
    packages = [path for path in sys.path if path.endswith("site-packages")]
    application.write_text(f"import sys\nsys.path[:0] = {[str(archive), *packages]!r}\n{APPLICATION}", "utf-8")
    command = [sys.executable, "-S", "-E", str(application), str(digits), str(SEVEN)]
    place, backends, label, ok, digest = run(command, HOME=str(tmp_path))
    assert str(place).startswith(str(archive))
    assert (backends, label, ok) == (sorted(BACKENDS), "7", True)
    archive.write_bytes(archive.read_bytes() + b"\0")
    assert run(command, HOME=str(tmp_path))[-1] != digest, "the code is told apart by the archive"


def test_every_module_is_imported_by_its_literal_name(tmp_path: Path) -> None:
    """What PyInstaller finds are import statements: the tables of names need one for each of their modules."""
    application = tmp_path / "app.py"
    application.write_text("import gtp_runtime.__main__\nimport gtp_runtime.fleet.cluster\n", "utf-8")
    finder = ModuleFinder([str(RUNTIME)])
    finder.run_script(str(application))
    assert {f"gtp_runtime.{home}" for home in _HOMES.values()} <= set(finder.modules)
    backends = {name for name in modules_of("gtp_runtime") if name.startswith("gtp_runtime.backends")}
    assert len(backends) > 3 and backends <= set(finder.modules)


@pytest.mark.full
def test_pyinstaller(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION, "utf-8")
    left_out = [f"--exclude-module={name}" for name in (*TOO_LARGE, *OTHERS)]
    places = [f"--{name}path={tmp_path / name}" for name in ("dist", "work", "spec")]
    build = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level=ERROR", *places, *left_out]
    environment = {**os.environ, "PYTHONPATH": str(RUNTIME)}
    subprocess.run([*build, str(tmp_path / "app.py")], env=environment, check=True, capture_output=True)
    command = [str(tmp_path / "dist" / "app" / "app"), str(digits), str(SEVEN)]
    _, backends, label, ok, _ = run(command, HOME=str(tmp_path))
    assert (backends, label, ok) == (sorted(BACKENDS), "7", True)
