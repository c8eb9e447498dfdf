"""The registry of backends: complete, and read by everything that names a backend or one of its options."""

import os
import re
import sys
from dataclasses import dataclass, fields, replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tomllib
from artifacts import ROOT, SEVEN, Command, python
from test_cli import document

import gtp_runtime
from gtp_export.extras import EXPORT, abilities, extra_of
from gtp_runtime import Model, backends, extras, read_manifest
from gtp_runtime.backends import BACKENDS, BackendSpec, find_backend
from gtp_runtime.errors import BackendMissingError, DeviceError, InputError
from gtp_runtime.extras import Extra, is_installed
from gtp_runtime.loading import load_twin

CORES = os.cpu_count() or 1
PROJECT, RUNTIME = (
    tomllib.loads((ROOT / name).read_text("utf-8"))["project"] for name in ("pyproject.toml", "runtime/pyproject.toml")
)
RUN_COMMANDS = ("validate", "bench", "predict")


def packages(extra: str) -> set[str]:
    """Distribution names of an extra of pyproject.toml, those of the runtime's extra of this name included."""
    texts = PROJECT["optional-dependencies"][extra]
    own = f"gtp-export-runtime[{extra}]"
    if own in texts:
        texts = [text for text in texts if text != own] + RUNTIME["optional-dependencies"][extra]
    return {re.split(r"[<>=!\[; ]", text)[0] for text in texts}


def test_every_module_of_the_package_holds_a_backend() -> None:
    modules = {path.stem for path in Path(backends.__file__).parent.iterdir()}
    assert modules - {"__init__", "__pycache__", "spec"} == set(BACKENDS)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_declares_what_is_needed(name: str) -> None:
    spec = BACKENDS[name]
    assert spec.name == name
    assert set(spec.default_for) <= set(spec.suffixes)
    assert spec.extras
    assert spec.options() == spec.options(), "every option has a default"
    assert spec.options.__dataclass_params__.frozen
    assert all(entry.metadata["help"] for entry in fields(spec.options))


def test_every_ending_has_one_default() -> None:
    specs = BACKENDS.values()
    for suffix in {suffix for spec in specs for suffix in spec.suffixes}:
        assert len([spec.name for spec in specs if suffix in spec.default_for]) == 1
    assert find_backend(Path("model.onnx")).name == "onnxruntime"
    assert find_backend(Path("model.engine")).name == "tensorrt"


def test_extras_are_those_of_pyproject() -> None:
    declared: dict[str, set[str]] = {}
    for ability in abilities():
        for extra in ability.extras:
            declared.setdefault(extra.name, set()).update(extra.packages.values())
    for name, wanted in declared.items():
        assert wanted == packages(name) - {"pillow"}, name  # a base dependency; export needs a newer one
    assert EXPORT.name in declared


def test_gtp_export_depends_on_its_runtime_of_the_same_version() -> None:
    assert f"gtp-export-runtime=={RUNTIME['version']}" in PROJECT["dependencies"]
    assert RUNTIME["version"] == PROJECT["version"]
    assert RUNTIME["requires-python"] == PROJECT["requires-python"].split()[0]
    for extra in RUNTIME["optional-dependencies"]:
        assert f"gtp-export-runtime[{extra}]" in PROJECT["optional-dependencies"][extra]
    runs = {extra.name for spec in BACKENDS.values() for extra in spec.extras}
    assert {*runs, "sign"} == set(RUNTIME["optional-dependencies"])


def test_every_extra_that_is_named_exists() -> None:
    named = set()
    for path in [*ROOT.rglob("*.py"), *ROOT.rglob("*.md")]:
        if not {"build", ".venv"} & set(path.relative_to(ROOT).parts):
            named |= set(re.findall(r"gtp-export\[([a-z][a-z,-]*)\]", path.read_text("utf-8")))
    assert {name for names in named for name in names.split(",")} <= set(PROJECT["optional-dependencies"])


def test_doctor_knows_what_every_backend_needs(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(document(command("doctor", "--json"))["packages"]) >= {
        name for ability in abilities() for extra in ability.extras for name in extra.packages.values()
    }
    monkeypatch.setattr(Extra, "missing", lambda extra: list(extra.packages.values()))
    ran = command("doctor")
    for ability in abilities():
        assert f"cannot {ability.task}: " in ran.out
        assert all(extra.command in ran.out for extra in ability.extras)
    assert ran.last == "next: gtp-export validate PATH"


def test_doctor_knows_that_engines_need_a_gpu(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gpu() -> None:
        raise DeviceError("CUDA finds no GPU here")

    monkeypatch.setattr(Extra, "missing", lambda extra: [])
    monkeypatch.setitem(BACKENDS._entries, "tensorrt", replace(BACKENDS["tensorrt"], find_device=no_gpu))
    ran = command("doctor")
    assert "cannot run TensorRT" in ran.out
    assert "can build TensorRT" in ran.out


def test_doctor_finds_onnxruntime_under_another_name(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    real = extras.version

    def other(name: str) -> str:
        if name == "onnxruntime":
            raise PackageNotFoundError
        return "1.30" if name == "onnxruntime-gpu" else real(name)

    monkeypatch.setattr(extras, "version", other)
    monkeypatch.setattr(extras, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu"]})
    found = document(command("doctor", "--json"))
    assert found["packages"]["onnxruntime"] == "1.30 (onnxruntime-gpu)"
    assert found["missing"]["onnxruntime"] == []


def test_the_extra_of_a_module_that_is_missing() -> None:
    for module, extra in (("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("yaml", "export")):
        found = extra_of(module)
        assert found is not None and found.name == extra
    assert extra_of("nothing") is None


def test_what_is_installed_is_found_without_importing_it() -> None:
    ran = python("from gtp_runtime.extras import is_installed; import sys; print(is_installed('numpy.no.such'), "
                 "is_installed('no.such'), is_installed('onnxruntime'), 'onnxruntime' in sys.modules)")  # fmt: skip
    assert ran.out.split() == ["False", "False", "True", "False"]
    assert is_installed("numpy")


@pytest.mark.parametrize(
    ("backend", "options", "message"),
    [
        (
            "onnxruntime",
            {"compute": "bf16"},
            "onnxruntime takes no option compute: it takes threads, provider",
        ),
        ("auto", {"host_code": True}, "onnxruntime takes no option host_code"),
        ("openvino", {"provider": "cuda"}, "openvino takes no option provider: it takes threads, compute, device"),
        ("openvino", {"compute": "int8"}, "compute='int8': choose one of fp32, bf16, fp16"),
        ("onnxruntime", {"provider": "npu"}, "provider='npu': choose one of cpu, cuda, tensorrt"),
        ("onnxruntime", {"provider": 3}, "provider=3"),
        ("onnxruntime", {"provider": []}, r"provider=\[\]"),
        ("tensorflow", {}, r"backend 'tensorflow' does not run model\.onnx: there are .*onnxruntime \(\.onnx\)"),
        ("tensorrt", {}, r"backend 'tensorrt' does not run model\.onnx"),
        (None, {}, "backend None does not run"),
        *(("auto", {"threads": threads}, "threads=") for threads in (-1, CORES + 1, 100_000, 1.5, "2", True, 10**30)),
        *(("openvino", {"threads": threads}, "threads=") for threads in (-1, 100_000, 2.0, "2", False, np.nan)),
    ],
    ids=str,
)
def test_options_that_do_nothing_are_refused(digits: Path, backend: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gtp_runtime.load(digits, backend, **options)


@pytest.mark.parametrize("threads", [0, 1, CORES, np.int64(1), None])
def test_threads(digits: Path, threads: Any) -> None:
    with gtp_runtime.load(digits, threads=threads) as model:
        assert model.backend.info["threads"] == (threads or 0)
        assert type(model.backend.info["threads"]) is int


@pytest.mark.parametrize("path", [3, None, 1.5, [], b"model.onnx"], ids=str)
def test_a_path_of_a_wrong_type(path: Any) -> None:
    with pytest.raises(InputError):
        gtp_runtime.load(path)


def test_files_that_no_backend_runs(digits: Path) -> None:
    with pytest.raises(InputError, match=r"no backend .*reference\.npz"):
        gtp_runtime.load(digits / "reference.npz")


@pytest.mark.parametrize("name", RUN_COMMANDS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compute", "bf16"], "compute: it takes threads, provider"),
        (["--backend", "openvino", "--provider", "cuda"], "openvino takes no option provider"),
        (["--host-code"], "onnxruntime takes no option host_code"),
        (["--threads", "100000"], f"threads=100000: give 1 to {CORES} "),
        (["--threads", "-1"], "'--threads'"),
        (["--threads", "1.5"], "'--threads'"),
        (["--backend", "tensorflow"], "'--backend'"),
        (["--backend", "tensorrt"], "backend 'tensorrt' does not run "),
        (["--provider", "npu"], "'--provider'"),
        (["--compute", "int8"], "'--compute'"),
    ],
    ids=str,
)
def test_commands_refuse_them(command: Command, digits: Path, name: str, arguments: list[str], message: str) -> None:
    images = [SEVEN] if name == "predict" else []
    ran = command(name, digits, *images, *arguments)
    assert ran.code == 2
    assert message in ran.error


@pytest.mark.parametrize("name", RUN_COMMANDS)
def test_help_says_defaults_and_who_takes_an_option(
    command: Command, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    monkeypatch.setenv("COLUMNS", "400")
    text = " ".join(command(name, "--help").out.split())
    for spec in BACKENDS.values():
        assert spec.name in text
        for entry in fields(spec.options):
            assert f"--{entry.name.replace('_', '-')}" in text
            takers = [other.name for other in BACKENDS.values() if entry.name in other.option_names]
            assert f"For {', '.join(takers)}" in text
    assert "(default: cpu)" in text, "the provider"


@dataclass(frozen=True)
class EchoOptions:
    """Of a backend that an application brings."""

    level: int = 3


class Echo:
    name = "echo"

    def __init__(self, level: int) -> None:
        self.info: dict[str, Any] = {"version": "1", "level": level}

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        return {"logits": np.full((1, 10), self.info["level"], np.float32)}

    def close(self) -> None:
        """Holds nothing."""


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> BackendSpec:
    monkeypatch.setattr(BACKENDS, "_entries", dict(BACKENDS._entries))
    return BACKENDS.add(
        BackendSpec(
            name="echo",
            runs="anything",
            suffixes=(".onnx",),
            default_for=(),
            extras=(Extra("export", {}),),
            options=EchoOptions,
            open=lambda path, entry, options: Echo(options.level),
        )
    )


def test_an_application_brings_its_own(echo: BackendSpec, digits: Path) -> None:
    with gtp_runtime.load(digits, "echo", level=7) as model:
        assert model.run(model.sample()).tolist() == [[7.0] * 10]
    with pytest.raises(InputError, match="echo .*threads: .*level"):
        gtp_runtime.load(digits, "echo", threads=1)
    with pytest.raises(InputError, match="echo"):
        BACKENDS.add(replace(echo))
    with pytest.raises(InputError, match="onnxruntime"):
        BACKENDS.add(replace(echo, name="other", default_for=(".onnx",)))
    assert BACKENDS.add(echo) is echo, "the same one again is no second one"


def loaded_engine(directory: Path) -> Model:
    """Let the manifest call the model's file an engine, whose twin is dense.onnx; return it as if it was loaded."""
    text = (directory / "model.json").read_text("utf-8").replace('"model.onnx"', '"model.engine"')
    (directory / "model.json").write_text(text, "utf-8")
    backend, options = SimpleNamespace(name="tensorrt"), BACKENDS["tensorrt"].options(host_code=True)
    return Model(directory / "model.engine", read_manifest(directory), backend, options)  # type: ignore[arg-type]


def test_a_twin_of_another_form_takes_the_options_that_its_backend_has(digits_copy: Path) -> None:
    dense = load_twin(loaded_engine(digits_copy))
    assert dense is not None
    assert (dense.path.name, dense.backend.name) == ("dense.onnx", "onnxruntime")
    assert load_twin(dense) is None
    dense.close()


def test_a_twin_of_the_same_form_has_the_same_options(digits: Path) -> None:
    with gtp_runtime.load(digits, threads=1) as model:
        dense = load_twin(model)
        assert dense is not None
        assert (dense.path.name, dense.backend.info["threads"]) == ("dense.onnx", 1)
        dense.close()


def test_a_twin_that_nothing_here_runs(digits_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendMissingError, match="onnxruntime"):
        load_twin(loaded_engine(digits_copy))
