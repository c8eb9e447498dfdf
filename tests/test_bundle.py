"""The bundle: what a device without an index installs, and what it can do with that."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from artifacts import ROOT, SEVEN
from test_wheel import run

import gtp_runtime
from gtp_runtime import __main__ as runtime_command

LARGEST = 1_000_000  # bytes of the runtime as installed, without Python's caches of it
NOT_THERE = "typer rich pydantic gtp_export gtp_exporters gtp_models torch onnx yaml jinja2".split()
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The scripts of bundle/."""
    monkeypatch.syspath_prepend(str(ROOT / "bundle"))
    names = ("bundling", "wheels", "install", "arm64")
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    yield {name: __import__(name) for name in names}
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(others)


def fresh(place: Path) -> Path:
    """Make an environment without pip; returns its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=place.parent)
    return place / "bin" / "python"


@pytest.mark.full
def test_a_device_without_an_index_installs_and_runs_it(digits_copy: Path, tmp_path: Path) -> None:
    build = (sys.executable, ROOT / "bundle" / "bundling.py")
    said = run(*build, "--extras", "onnxruntime,sign", "--outdir", tmp_path, cwd=tmp_path)
    (bundle,) = tmp_path.glob("*.pyz")
    assert f"run there: python3 {bundle.name}" in said
    python = fresh(tmp_path / "device")
    assert "next: " in run(python, bundle, "--quiet", cwd=tmp_path)
    look = f"from importlib.util import find_spec; print([name for name in {NOT_THERE} if find_spec(name)])"
    assert run(python, "-c", look, cwd=tmp_path) == "[]\n"
    (package,) = (tmp_path / "device").rglob("site-packages/gtp_runtime")
    assert sum(path.stat().st_size for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc") < LARGEST
    assert list(package.parent.glob("gtp_export_runtime-*.dist-info/licenses/LICENSE"))
    command = (python, "-m", "gtp_runtime")
    said = run(*command, "validate", digits_copy, "--threads", "1", cwd=tmp_path)
    assert "parity ok on 360 images" in said
    assert gtp_runtime.read_manifest(digits_copy).results["parity"]["model.onnx"]["ok"]
    assert "model.onnx with onnxruntime" in run(*command, "selftest", digits_copy, "--threads", "1", cwd=tmp_path)
    said = run(*command, "predict", digits_copy, SEVEN, "--topk", "1", cwd=tmp_path)
    assert "7" in [line.split()[0] for line in said.splitlines()]


def small(scripts: dict[str, ModuleType], place: Path, **target: Any) -> Path:
    """Make a bundle of one wheel that installs nothing."""
    wheels = place / "wheels"
    wheels.mkdir()
    (wheels / "pip-1-py3-none-any.whl").write_bytes(b"no zip")
    here = {"python": HERE, "machine": scripts["bundling"].platform.machine(), "glibc": "2.17", "platform": "here"}
    scripts["bundling"].pack(wheels, "nothing", {**here, **target}, place / "small.pyz")
    return place / "small.pyz"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"python": "3.9"}, f"it is for Python 3.9, this is {HERE}: make bundle DEVICE_PYTHON={HERE}"),
        ({"machine": "riscv64"}, "it is for riscv64, this is "),
        ({"glibc": "2.999"}, "it needs glibc 2.999, this is 2."),
    ],
)
def test_another_device_is_told_so(
    scripts: dict[str, ModuleType], tmp_path: Path, target: dict[str, str], words: str
) -> None:
    said = run(sys.executable, small(scripts, tmp_path, **target), cwd=tmp_path, code=4)
    assert words in said
    assert said.count("\n") == 1


def test_a_damaged_bundle_is_refused(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    bundle = small(scripts, tmp_path)
    bundle.write_bytes(bundle.read_bytes().replace(b"no zip", b"no Zip"))
    assert "damaged (pip-1-py3-none-any.whl)" in run(sys.executable, bundle, cwd=tmp_path, code=1)


@pytest.mark.parametrize(
    ("tag", "python", "words"),
    [
        ("win_amd64", "3.11", "PLATFORM=win_amd64: give aarch64, x86_64, or a tag"),
        ("aarch64", "3.9", "DEVICE_PYTHON=3.9: give 3.10 or newer"),
        ("aarch64", "four", "DEVICE_PYTHON=four"),
    ],
)
def test_targets_that_are_none(scripts: dict[str, ModuleType], tag: str, python: str, words: str) -> None:
    with pytest.raises(scripts["wheels"].TargetError, match=words):
        scripts["wheels"].target_of(tag, python)


def test_a_package_without_wheels_is_named(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(
            [], 1, "", "WARNING: odd\nERROR: No matching distribution found for pycuda\n"
        )

    (tmp_path / "x-1-py3-none-any.whl").touch()
    monkeypatch.setattr(scripts["bundling"], "build_runtime", lambda place: tmp_path / "x-1-py3-none-any.whl")
    monkeypatch.setattr(scripts["wheels"].subprocess, "run", refuse)
    monkeypatch.setattr(sys, "argv", ["bundling.py", "--platform", "aarch64", "--extras", "jetson"])
    assert scripts["bundling"].main() == 1
    said = capsys.readouterr().err
    assert "found for pycuda" in said


def test_what_only_the_devices_python_needs_is_found(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    needs = {
        "root": ["a; extra == 'x'", "never; sys_platform == 'win32'"],
        "a": ["old>=1; python_version < '3.11'", "arm; platform_machine == 'aarch64'", "root"],
    }
    for name, entries in needs.items():
        with zipfile.ZipFile(tmp_path / f"{name}-1-py3-none-any.whl", "w") as wheel:
            lines = "".join(f"Requires-Dist: {entry}\n" for entry in entries)
            wheel.writestr(f"{name}-1.dist-info/METADATA", f"Name: {name}\nVersion: 1\n{lines}")
    wheels = scripts["wheels"]
    for python, machine, missing in (("3.10", "aarch64", ["arm", "old>=1"]), ("3.11", "x86_64", [])):
        target = wheels.target_of(machine, python)
        assert sorted(wheels._missing(wheels.Requirement("root[x]"), target, tmp_path)) == missing
    assert wheels._missing(wheels.Requirement("root"), target, tmp_path) == []


def test_constraints_are_for_the_python_that_they_need(scripts: dict[str, ModuleType]) -> None:
    assert scripts["bundling"].pins("3.10") == []
    assert scripts["bundling"].pins("3.12") == [ROOT / "constraints.txt"]


@pytest.mark.parametrize("missing", ["qemu-aarch64-static", "apt-get"])
def test_the_emulated_device_is_skipped_with_a_reason(
    scripts: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing: str,
) -> None:
    monkeypatch.setattr(scripts["arm64"].shutil, "which", lambda tool: None if tool == missing else tool)
    monkeypatch.setattr(sys, "argv", ["arm64.py", "--place", str(tmp_path)])
    assert scripts["arm64"].main() == 0
    assert capsys.readouterr().out.startswith(f"skipped: {missing} is not installed")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["validate", "nowhere"], 1, "error: no file nowhere"),
        (["validate", "{digits}", "--backend", "openvino", "--provider", "cpu"], 2, "takes no option provider"),
        (["predict", "{digits}", "missing.png"], 1, "error: "),
        (["predict", "{digits}", "missing.png", "--topk", "0"], 2, "topk=0"),
        (["validate", "{digits}", "--trusted-key", "nowhere.pub"], 1, "cannot read the public key"),
    ],
)
def test_errors_are_one_line_and_a_code(
    digits: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert runtime_command.main([text.format(digits=digits) for text in arguments]) == code
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_one_json_document(digits_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runtime_command.main(["validate", str(digits_copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert runtime_command.main(["predict", str(digits_copy), str(SEVEN), "missing.png", "--json"]) == 1
    seven, missing = json.loads(capsys.readouterr().out)["images"]
    assert seven["predictions"][0]["label"] == "7"
    assert "missing.png" in missing["error"]


def test_the_self_test_says_what_runs(digits_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (digits_copy / "model.json").read_bytes()
    assert runtime_command.main(["selftest", str(digits_copy), "--json", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["backend"]) == (True, "onnxruntime")
    assert (digits_copy / "model.json").read_bytes() == before


def test_a_gate_that_fails(digits_copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    report = gtp_runtime.load(digits_copy).validate()
    report.problems.append("too far off")
    monkeypatch.setattr(gtp_runtime.Model, "validate", lambda model, *_: report)
    monkeypatch.setattr(gtp_runtime.Model, "record", lambda *arguments: False)
    assert runtime_command.main(["validate", str(digits_copy)]) == 3
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "  gate: too far off"
    assert "was not stored" in said.err
    assert runtime_command.main(["selftest", str(digits_copy)]) == 3
    assert "fails its self-test" in capsys.readouterr().err
