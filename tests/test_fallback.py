"""backend="auto" runs what a directory has for this device, and says which and why; a model tests itself."""

import json
import logging
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from artifacts import SEVEN, Command
from test_cli import document

import gtp_runtime
from gtp_runtime.backends import BACKENDS
from gtp_runtime.backends import onnxruntime as backend
from gtp_runtime.backends.onnxruntime import OnnxRuntimeBackend, OnnxRuntimeOptions
from gtp_runtime.errors import (
    BackendMissingError,
    DeviceError,
    EngineMismatchError,
    InputError,
    ManifestError,
    SelfTestError,
)
from gtp_runtime.loading import load_twin
from gtp_runtime.manifest import file_sha256

CUDA_MISSING = "not model.onnx with onnxruntime, provider cuda: this onnxruntime has no CUDAExecutionProvider"


@pytest.fixture
def engine(digits_copy: Path) -> Path:
    """An export with a file that its manifest lists as an engine of model.onnx."""
    file = digits_copy / "model.engine"
    file.write_bytes(b"an engine")
    manifest = json.loads((digits_copy / "model.json").read_text("utf-8"))
    graph = manifest["files"]["model.onnx"]
    built = {
        "flavor": "tensorrt",
        "version": "10.3.0",
        "onnx": "model.onnx",
        "onnx_sha256": graph["sha256"],
        "layers": 1,
        "build_seconds": 1.0,
    }
    manifest["files"][file.name] = {**graph, "sha256": file_sha256(file), "size": 9, "engine": built}
    (digits_copy / "model.json").write_text(json.dumps(manifest), "utf-8")
    return digits_copy


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every backend open what it gets, with ONNX Runtime on the CPU; return what was opened."""
    found: list[str] = []

    def open_file(path: Path, entry: Any, options: Any) -> Any:
        found.append(f"{path.name} {getattr(options, 'provider', 'tensorrt')}")
        return OnnxRuntimeBackend(path.with_suffix(".onnx"), entry, OnnxRuntimeOptions(1))

    specs = {name: replace(spec, open=open_file) for name, spec in BACKENDS.items()}
    monkeypatch.setattr(BACKENDS, "_entries", specs)
    return found


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    def fail(*arguments: Any) -> Any:
        raise error

    monkeypatch.setitem(BACKENDS._entries, name, replace(BACKENDS._entries[name], open=fail))


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What is logged of the choice; -v says more, and another test may have left it on."""
    chosen = [record for record in caplog.records if record.name == "gtp_runtime.loading"]
    said = [record for record in chosen if record.levelno >= logging.INFO]
    return [(record.levelname, record.getMessage()) for record in said]


def test_the_engine_first(engine: Path, opened: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with gtp_runtime.load(engine) as model:
        assert (model.path.name, opened) == ("model.engine", ["model.engine tensorrt"])
    assert lines(caplog) == [("INFO", f"{engine}: runs model.engine with tensorrt")]


@pytest.mark.parametrize("kind", [BackendMissingError, EngineMismatchError, DeviceError])
def test_then_cuda(
    engine: Path, opened: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    refuse(monkeypatch, "tensorrt", kind("not here"))
    with gtp_runtime.load(engine) as model:
        assert (model.path.name, opened) == ("model.onnx", ["model.onnx cuda"])
    said = "runs model.onnx with onnxruntime, provider cuda; not model.engine with tensorrt: not here"
    assert lines(caplog) == [("WARNING", f"{engine}: {said}")]


def test_then_the_cpu(engine: Path, caplog: pytest.LogCaptureFixture) -> None:
    with gtp_runtime.load(engine) as model:
        assert (model.path.name, model.backend.info["provider"]) == ("model.onnx", "cpu")
        assert model.predict(SEVEN, topk=1)[0].label == "7"
    ((level, said),) = lines(caplog)
    assert level == "WARNING", "an engine is there, and not used"
    assert re.fullmatch(
        rf".*: runs model\.onnx with onnxruntime; not model\.engine with tensorrt: .*; {CUDA_MISSING}: .*", said
    )


def test_an_export_without_an_engine(digits: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    gtp_runtime.load(digits).close()
    ((level, said),) = lines(caplog)
    assert (level, said.startswith(f"{digits}: runs model.onnx with onnxruntime; {CUDA_MISSING}")) == ("INFO", True)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"threads": 1}, "model.onnx cuda"),
        ({"provider": "cpu"}, "model.onnx cpu"),
        ({"provider": "tensorrt"}, "model.onnx tensorrt"),
        ({"host_code": True}, "model.engine tensorrt"),
        ({"backend": "onnxruntime"}, "model.onnx cpu"),
        ({"precision": "fp32"}, "model.engine tensorrt"),
    ],
    ids=str,
)
def test_options_say_what_may_be_tried(engine: Path, opened: list[str], options: dict[str, Any], wanted: str) -> None:
    gtp_runtime.load(engine, **options).close()
    assert opened == [wanted]


def test_a_file_is_run_as_it_is(engine: Path, opened: list[str]) -> None:
    gtp_runtime.load(engine / "model.onnx").close()
    gtp_runtime.load(engine / "model.engine").close()
    assert opened == ["model.onnx cpu", "model.engine tensorrt"]


def test_a_damaged_engine_is_no_reason_to_take_another_file(engine: Path) -> None:
    (engine / "model.engine").write_bytes(b"AN ENGINE")
    with pytest.raises(ManifestError, match="sha256 differs"):
        gtp_runtime.load(engine)
    (engine / "model.engine").unlink()
    gtp_runtime.load(engine).close()


def run_with(monkeypatch: pytest.MonkeyPatch, graph: Path) -> None:
    """Let TensorRT run a graph, whatever engine it gets."""
    spec = BACKENDS._entries["tensorrt"]
    stand_in = replace(spec, open=lambda path, entry, options: OnnxRuntimeBackend(graph, entry, OnnxRuntimeOptions(1)))
    monkeypatch.setitem(BACKENDS._entries, "tensorrt", stand_in)


def test_an_engine_needs_no_graph_beside_it(
    engine: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    run_with(monkeypatch, (engine / "model.onnx").rename(engine.parent / "moved.onnx"))
    with gtp_runtime.load(engine) as model:
        assert (model.path.name, model.predict(SEVEN, topk=1)[0].label) == ("model.engine", "7")
    assert command("predict", engine, SEVEN).code == 0
    with pytest.raises(InputError, match="tensorrt .*threads"):
        gtp_runtime.load(engine, threads=1)
    with pytest.raises(ManifestError, match=r"model\.onnx, .*copy"):
        gtp_runtime.load(engine, "onnxruntime")
    (engine / "model.engine").unlink()
    with pytest.raises(ManifestError, match=r"model\.onnx: .*gtp-export export"):
        gtp_runtime.load(engine)


def test_an_engine_whose_build_was_killed_before_its_last_step(engine: Path, opened: list[str]) -> None:
    (engine / "model.engine").rename(engine / ".model.engine.tmp-1-1")
    with gtp_runtime.load(engine) as model:
        assert model.path.name == "model.engine"
    assert opened == ["model.engine tensorrt"]


def test_a_twin_runs_as_the_model_does(engine: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "tensorrt", DeviceError("not here"))
    with gtp_runtime.load(engine) as model:
        twin = load_twin(model)
        assert twin is not None and twin.options == model.options
        twin.close()
    assert opened == ["model.onnx cuda", "dense.onnx cuda"]


def test_nothing_runs_here(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendMissingError, match="onnxruntime"):
        gtp_runtime.load(digits)
    with pytest.raises(InputError, match="onnxruntime .*host_code"):
        gtp_runtime.load(digits, host_code=True)


def test_a_provider_whose_device_refuses(digits: Path) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory\nmore")

    ort: Any = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=fail)
    with pytest.raises(DeviceError, match=r"CUDAExecutionProvider .*out of memory more"):
        backend._session(ort, digits / "model.onnx", SimpleNamespace(), OnnxRuntimeOptions(1, "cuda"))
    with pytest.raises(ManifestError, match="ONNX Runtime"):
        backend._session(ort, digits / "model.onnx", SimpleNamespace(), OnnxRuntimeOptions(1))


def test_commands_take_what_suits_a_directory(command: Command, engine: Path, opened: list[str]) -> None:
    assert document(command("validate", engine, "--json"))["file"] == str(engine / "model.engine")
    assert command("predict", engine, SEVEN).code == 0
    assert opened == ["model.engine tensorrt"] * 2


def test_a_model_tests_itself(digits: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with gtp_runtime.load(digits, threads=1) as model:
        parity = model.selftest()
        assert parity.ok and parity.images == 360
    assert re.fullmatch(rf"self-test of {model.path}: 360 images in \d+\.\d\d s", caplog.messages[-1])


def test_a_model_that_answers_otherwise_fails_its_self_test(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gtp_runtime.load(digits, threads=1) as model:
        run = model.backend.run
        monkeypatch.setattr(
            model.backend,
            "run",
            lambda inputs: {name: np.roll(value, 1, axis=1) for name, value in run(inputs).items()},
        )
        with pytest.raises(SelfTestError, match=r"model\.onnx fails .*onnxruntime: ") as caught:
            model.selftest()
    assert not caught.value.parity.ok
    assert str(caught.value).count("\n") == 0
    with pytest.raises(InputError, match="min_kept"), gtp_runtime.load(digits, threads=1) as model:
        model.selftest(min_kept=2)
