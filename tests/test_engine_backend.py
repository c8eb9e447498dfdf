"""The engine backend on a TensorRT and a CUDA of numpy: order of work, checks, errors, threads."""

import importlib
import json
import os
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from artifacts import Command
from fake_tensorrt import FakeCuda, fake_trt

from gtp_export.running import RunOptions
from gtp_runtime import load, read_manifest
from gtp_runtime.backends.tensorrt.flavor import find_flavor
from gtp_runtime.errors import (
    BackendMissingError,
    DeviceError,
    EngineMismatchError,
    GTPRuntimeError,
    InputError,
    ManifestError,
)
from gtp_runtime.images.preprocessing import Preprocessing
from gtp_runtime.manifest import (
    BatchRange,
    EngineInfo,
    FileEntry,
    Manifest,
    ModelInfo,
    TensorSpec,
    WeightsInfo,
    file_sha256,
    write_manifest,
)

PREPROCESSING = Preprocessing([4, 4], "shortest", [4, 4], "bicubic", [0.0] * 3, [1.0] * 3, [0, 0, 0])
INFO = EngineInfo(
    "tensorrt", "10.3.0", "model.onnx", "", 3, 0.1, gpu="Orin", compute_capability="8.7", jetpack="L4T 36.4"
)
SHAPES = {"images": (1, 3, 4, 4), "logits": (1, 5)}
Start = Callable[..., Any]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Write an artifact directory with an engine, put fakes in the way and load it."""

    def run(
        info: EngineInfo = INFO,
        version: str = "10.3.0",
        refuse: str = "",
        sm: str = "8.7",
        batch: BatchRange | None = None,
        **load_args: Any,
    ) -> Any:
        path = tmp_path / "model.engine"
        path.write_bytes(b"plan")
        most, free = (1, 1) if batch is None else (batch.max, -1)
        specs = [TensorSpec(name, [most, *shape[1:]], "float32") for name, shape in SHAPES.items()]
        shapes = {name: (free, *shape[1:]) for name, shape in SHAPES.items()}
        entry = FileEntry(
            "model", file_sha256(path), 4, "gtp", "fp16", inputs=specs[:1], outputs=specs[1:], engine=info, batch=batch
        )
        model, weights = ModelInfo("tiny", "", "", 5, 1, [2, 2]), WeightsInfo("file", "", "")
        write_manifest(Manifest(model, weights, "gtp", {}, [], {}, PREPROCESSING, {"model.engine": entry}), tmp_path)
        cuda = FakeCuda(sm)
        module = fake_trt(cuda, shapes, version, refuse)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
        monkeypatch.setattr("gtp_runtime.backends.tensorrt.backend.find_cuda", lambda: cuda)
        loaded = load(path, **load_args)
        loaded.fake_cuda, loaded.fake_trt = cuda, module
        return loaded

    return run


def test_it_runs_in_order_and_answers(start: Start) -> None:
    model = start()
    images = np.full((1, 3, 4, 4), 0.5, np.float32)
    np.testing.assert_array_equal(model.run(images), [[24, 25, 26, 27, 28]])
    order = ["record", "upload", "record", "execute", "record", "download", "record", "wait"]
    assert model.fake_cuda.log == order
    assert model.fake_cuda.depth == 0
    assert model.backend.info["flavor"] == "tensorrt"
    assert model.backend.info["settings"]["cuda_graph"] is False


def test_a_range_of_batches_takes_any_number_in_it(start: Start) -> None:
    model = start(batch=BatchRange(2, 4))
    for count in (4, 2, 3, 4):
        images = np.arange(count, dtype=np.float32)[:, None, None, None].repeat(48, 1).reshape(count, 3, 4, 4)
        np.testing.assert_array_equal(model.run(images), 48 * np.arange(count)[:, None] + np.arange(5))
    for count in (1, 5):
        with pytest.raises(InputError, match=r"2\.\.4"):
            model.run(np.zeros((count, 3, 4, 4), np.float32))
    images = np.ones((9, 3, 4, 4), np.float32)
    np.testing.assert_array_equal(model.run_all(images)["logits"], np.tile(48 + np.arange(5), (9, 1)))
    assert model.batch == 2 and model.sample().shape == (2, 3, 4, 4)


def test_an_engine_that_refuses_a_batch(start: Start) -> None:
    with pytest.raises(DeviceError, match="take 2 images"):
        start(batch=BatchRange(1, 4), refuse="shape").run(np.zeros((2, 3, 4, 4), np.float32))


def test_an_engine_of_fixed_shape_is_no_range(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fake_tensorrt.FakeEngine.get_tensor_shape", lambda self, name: (4, *SHAPES[name][1:]))
    with pytest.raises(ManifestError, match="batch"):
        start(batch=BatchRange(1, 4))


def test_stages_are_what_the_events_say(start: Start) -> None:
    stages = start().backend.stages({"images": np.zeros((1, 3, 4, 4), np.float32)})
    assert (stages["h2d"], stages["compute"], stages["d2h"]) == (2, 2, 2)
    assert stages["enqueue"] >= 0


def test_threads_share_it(start: Start) -> None:
    model = start()
    batches = [np.full((1, 3, 4, 4), value, np.float32) for value in range(20)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(model.run, batches))
    assert [answer[0, 0] for answer in answers] == [48 * value for value in range(20)]


def test_closing_frees_everything(start: Start) -> None:
    with start() as model:
        assert model.fake_cuda.memory
        assert sorted(model.fake_cuda.alive) == ["event"] * 4 + ["stream"]
    assert not model.fake_cuda.memory
    assert not model.fake_cuda.alive
    model.close()
    assert model.fake_cuda.depth == 0
    with pytest.raises(GTPRuntimeError, match="was closed"):
        model.run(np.zeros((1, 3, 4, 4), np.float32))


def test_host_code_stays_off_unless_asked(start: Start) -> None:
    assert start().fake_trt.runtimes[0].engine_host_code_allowed is False
    assert start(host_code=True).fake_trt.runtimes[0].engine_host_code_allowed is True


@pytest.mark.parametrize(
    ("refuse", "task"), [("read", "read"), ("context", "start the engine"), ("bind", "bind images")]
)
def test_every_refusal_while_loading_is_an_error(start: Start, refuse: str, task: str) -> None:
    with pytest.raises(DeviceError, match=f"TensorRT refuses to {task}"):
        start(refuse=refuse)
    assert not FakeCuda.last.memory
    assert not FakeCuda.last.alive


def test_what_fails_half_way_is_freed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: FakeCuda) -> None:
        raise DeviceError("CUDA: out of memory")

    monkeypatch.setattr(FakeCuda, "event", full)
    with pytest.raises(DeviceError, match="out of memory"):
        start()
    assert not FakeCuda.last.memory
    assert not FakeCuda.last.alive


def test_what_cannot_be_freed_leaves_the_rest_to_be_freed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: FakeCuda, memory: int) -> None:
        raise DeviceError("CUDA: an illegal memory access was encountered")

    model = start()
    monkeypatch.setattr(FakeCuda, "free", broken)
    model.close()
    assert not model.fake_cuda.alive


def add_twin(path: Path, name: str) -> None:
    """Put a dense twin beside an engine, under a dense file's name and role: the same bytes, or an empty graph."""
    twin = path.parent / name
    twin.write_bytes(b"\x08\x08\x3a\x00" if twin.suffix == ".onnx" else path.read_bytes())
    manifest = read_manifest(path.parent)
    dense = replace(manifest.entry(path.name), role="dense", sha256=file_sha256(twin))
    write_manifest(replace(manifest, files={**manifest.files, name: dense}), path.parent)


def test_an_engine_is_compared_with_an_engine(
    start: Start, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = start()
    path = model.path
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # a Jetson has none
    for name in ("dense.onnx", "dense.engine"):
        add_twin(path, name)
    twin = RunOptions("auto", {"host_code": True}, {"threads": 1}).load_twin(model)
    assert twin is not None
    assert (twin.path.name, twin.backend.name) == ("dense.engine", "tensorrt")
    twin.close()
    ran = command("bench", path, "--seconds", "0", "--json")
    assert ran.code == 0, ran.err
    assert [Path(entry["file"]).name for entry in json.loads(ran.out)["files"]] == ["dense.engine", "model.engine"]


def test_a_twin_that_nothing_here_runs_is_said(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = start()
    add_twin(model.path, "dense.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert RunOptions("auto", {}, {}).load_twin(model) is None
    assert "onnxruntime is not installed" in capsys.readouterr().err


def test_an_option_that_an_engine_does_not_take(start: Start, command: Command) -> None:
    for name in ("bench", "validate"):
        ran = command(name, start().path, "--threads", "2")
        assert ran.code == 2
        assert "host_code, keep_kernels" in ran.error


def test_tensorrts_own_words_are_in_the_error(start: Start) -> None:
    with pytest.raises(DeviceError, match="stdVersionRead == serializationVersion"):
        start(refuse="read")


def test_a_run_that_is_refused_is_an_error(start: Start) -> None:
    with pytest.raises(DeviceError):
        start(refuse="run").run(np.zeros((1, 3, 4, 4), np.float32))


def test_what_tensorrt_says_for_months_is_not_all_kept(start: Start) -> None:
    backend = start(refuse="run").backend
    for number in range(300):
        for severity in (1, 2, 3):
            backend._logger.log(severity, f"said {number}\non two lines")
    assert len(backend._logger.errors) == len(backend._logger.warnings) == 100
    assert backend._refusal("run") == "TensorRT refuses to run: " + "; ".join(
        f"said {number} on two lines" for number in (297, 298, 299)
    )


@pytest.mark.parametrize("version", ["10.13.3", "11.4.1"])
def test_another_version_says_what_was_built_where_and_how_to_rebuild(start: Start, version: str) -> None:
    with pytest.raises(EngineMismatchError) as caught:
        start(version=version)
    message = str(caught.value)
    assert f"built with tensorrt 10.3.0 on Orin, L4T 36.4, but tensorrt {version} is installed" in message
    assert "gtp-export build-engine" in message


def test_another_gpu_is_refused(start: Start) -> None:
    with pytest.raises(EngineMismatchError, match=r"8\.7 \(Orin\), .*Fake \(sm89\)"):
        start(sm="8.9")


def test_a_tampered_engine_never_reaches_tensorrt(start: Start, tmp_path: Path) -> None:
    model = start()
    model.path.write_bytes(b"evil")
    with pytest.raises(ManifestError, match="sha256 differs"):
        load(model.path)
    assert len(model.fake_trt.runtimes) == 1


def test_rtx_keeps_its_compiled_kernels(start: Start, tmp_path: Path) -> None:
    rtx = replace(INFO, flavor="rtx", version="1.7.1", targets=["sm87"], compute_capability=None)
    start(rtx, "1.7.1").close()
    cache = tmp_path / "model.rtx-cache"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.engine", "model.json", "model.rtx-cache"]
    assert cache.read_bytes() == b"kernels"
    assert start(rtx, "1.7.1").fake_cuda.log[0] == "cache b'kernels'"
    with pytest.raises(DeviceError):
        start(rtx, "1.7.1", refuse="cache")
    with pytest.raises(EngineMismatchError, match="built for sm87"):
        start(rtx, "1.7.1", sm="12.0")


def test_compiled_kernels_that_cannot_be_kept_are_told(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def full(*arguments: object) -> None:
        raise OSError("no space")

    model = start(replace(INFO, flavor="rtx", version="1.7.1", targets=["sm87"]), "1.7.1")
    (tmp_path / "model.rtx-cache").write_bytes(b"earlier")
    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level("INFO", "gtp_runtime"):
        model.close()
    assert "are not kept" in caplog.text
    assert (tmp_path / "model.rtx-cache").read_bytes() == b"earlier"


def test_options_that_tensorrt_does_not_take(start: Start) -> None:
    for option, value in (("provider", "cuda"), ("threads", 2), ("compute", "bf16")):
        with pytest.raises(InputError, match=f"tensorrt .*{option}: .*host_code"):
            start(**{option: value})


def test_a_tensorrt_that_is_too_old(start: Start) -> None:
    with pytest.raises(BackendMissingError, match=r"8\.6\.1 .*JetPack 6\.1"):
        start(version="8.6.1")


def test_no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendMissingError, match=r"gtp-export\[tensorrt\].*gtp-export\[tensorrt-rtx\]"):
        find_flavor()
    with pytest.raises(InputError, match="'trt'.*auto, tensorrt, rtx"):
        find_flavor("trt")


def test_auto_prefers_the_full_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    full, rtx = ModuleType("tensorrt"), ModuleType("tensorrt_rtx")
    full.__version__, rtx.__version__ = "10.13.0", "1.7.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", full)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx)
    assert find_flavor().name == "tensorrt"
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert (find_flavor().name, find_flavor("rtx").is_rtx) == ("rtx", True)


def test_cuda_python_destroys_streams_and_events(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings.runtime")
    cuda_python = importlib.import_module("gtp_runtime.backends.tensorrt.cuda_python")
    destroyed: list[object] = []

    def destroy(thing: object) -> tuple[int]:
        destroyed.append(thing)
        return (0,)

    runtime = SimpleNamespace(cudaStreamDestroy=destroy, cudaEventDestroy=destroy)
    monkeypatch.setattr(cuda_python, "runtime", runtime)
    cuda = object.__new__(cuda_python.CudaPython)
    cuda.destroy_stream("stream")
    cuda.destroy_event("event")
    assert destroyed == ["stream", "event"]


def test_cuda_without_a_driver_says_so() -> None:
    pytest.importorskip("cuda.bindings.runtime")
    cuda_python = importlib.import_module("gtp_runtime.backends.tensorrt.cuda_python")
    try:
        found = cuda_python.CudaPython().describe()["compute_capability"]
    except DeviceError as error:
        found = str(error)
    assert re.match(r"\d+\.\d$|CUDA.*nvidia-smi", found)
