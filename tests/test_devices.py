"""Devices of OpenVINO and execution providers: names are checked, and what falls back to the CPU is reported."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from artifacts import Command
from test_cli import document

import gtp_runtime
from gtp_runtime import read_manifest
from gtp_runtime.backends import openvino
from gtp_runtime.backends.onnxruntime import PROVIDERS, OnnxRuntimeOptions, short_name
from gtp_runtime.backends.openvino import OpenVinoOptions, check_devices, listed_devices
from gtp_runtime.errors import BackendMissingError, DeviceError, InputError
from gtp_runtime.placement import Placement, place

TAKES_NOTHING = "azure"  # of PyPI's onnxruntime: it is there, and leaves every operator of a ViT to the CPU


@pytest.mark.parametrize(
    ("device", "devices"),
    [
        ("CPU", ["CPU"]),
        ("GPU.1", ["GPU.1"]),
        ("AUTO", []),
        ("AUTO:GPU,CPU", ["GPU", "CPU"]),
        ("MULTI:GPU.0,GPU.1", ["GPU.0", "GPU.1"]),
        ("HETERO:NPU,CPU", ["NPU", "CPU"]),
    ],
)
def test_names_of_devices(device: str, devices: list[str]) -> None:
    assert listed_devices(device) == devices


@pytest.mark.parametrize(
    "device", ["", "TPU", "GPU,CPU", "HETERO", "AUTO:", "AUTO:-CPU", "BATCH:CPU", "GPU.x", "CPU:1"]
)
def test_names_that_are_none(device: str) -> None:
    with pytest.raises(InputError):
        OpenVinoOptions(device=device)


def test_a_device_must_be_there() -> None:
    check_devices("HETERO:GPU,CPU", ["CPU", "GPU.0", "GPU.1"])
    check_devices("AUTO", ["CPU"])
    for device in ("GPU", "AUTO:GPU,CPU", "GPU.2"):
        with pytest.raises(BackendMissingError, match="GPU"):
            check_devices(device, ["CPU"])


def test_an_npu_computes_in_fp16() -> None:
    with pytest.raises(InputError, match="fp16"):
        OpenVinoOptions(device="HETERO:NPU,CPU")
    assert OpenVinoOptions(device="npu", compute="fp16").device == "NPU"


def test_threads_are_those_of_the_cpu() -> None:
    threads = {"INFERENCE_NUM_THREADS": 1}
    assert openvino._settings(OpenVinoOptions(1)).items() >= threads.items()
    assert openvino._settings(OpenVinoOptions(1, device="HETERO:GPU,CPU"))["DEVICE_PROPERTIES"] == {"CPU": threads}
    assert "DEVICE_PROPERTIES" not in openvino._settings(OpenVinoOptions(1, device="AUTO:GPU"))
    assert not threads.keys() & openvino._settings(OpenVinoOptions(1, device="GPU")).keys()


def test_what_a_first_device_leaves_to_the_next() -> None:
    kinds = {"a": "MatMul", "b": "TopK", "c": "TopK", "w": "Constant"}
    operators = [
        SimpleNamespace(get_friendly_name=lambda name=name: name, get_type_name=lambda kind=kind: kind)
        for name, kind in kinds.items()
    ]
    devices = {"a": "NPU", "b": "CPU", "c": "CPU", "w": "CPU"}
    core = SimpleNamespace(query_model=lambda model, device: devices)
    placed = openvino._placed(core, SimpleNamespace(get_ops=lambda: operators), "HETERO:NPU,CPU")
    assert placed == Placement({"CPU": 2, "NPU": 1}, {"TopK": 2})


@pytest.mark.parametrize(("device", "has_placement"), [("CPU", False), ("auto", False), ("HETERO:CPU", True)])
def test_results_name_the_device(digits: Path, device: str, has_placement: bool) -> None:
    pytest.importorskip("openvino")
    with gtp_runtime.load(digits, "openvino", threads=1, device=device) as model:
        assert model.device == model.answered()["device"] == "CPU"
        assert (model.backend.info["requested"], model.backend.info["threads"]) == (device.upper(), 1)
        placement = model.placement()
        assert (placement is not None) == has_placement
        if placement is not None:
            assert placement.nodes.keys() == {"CPU"} and not placement.fell_back
        assert model.validate().ok


def test_another_precision_than_asked_is_refused(digits: Path) -> None:
    core = pytest.importorskip("openvino").Core()
    if "FP16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU computes in fp16")
    with pytest.raises(DeviceError, match="compute"):
        gtp_runtime.load(digits, "openvino", compute="fp16")


def test_names_of_providers() -> None:
    for short, name in PROVIDERS.items():
        assert short_name(short) == short_name(name) == short_name(name.upper()) == short
    with pytest.raises(InputError, match="cuda"):
        short_name("CUDNN")


@pytest.mark.parametrize("options", [{}, {"provider": "cpu"}], ids=str)
def test_options_of_no_provider_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="provider_options"):
        OnnxRuntimeOptions(provider_options={"device_id": "0"}, **options)


@pytest.mark.parametrize("value", ["device_id=0", {"device_id": 0}, [("device_id", "0")]], ids=str)
def test_provider_options_are_texts(digits: Path, value: Any) -> None:
    with pytest.raises(InputError, match="provider_options"):
        gtp_runtime.load(digits, provider=TAKES_NOTHING, provider_options=value)


def test_what_falls_back_is_recorded(digits: Path) -> None:
    with gtp_runtime.load(digits, provider=TAKES_NOTHING) as model:
        placement = model.placement()
        assert (model.device, model.backend.info["provider"]) == (TAKES_NOTHING, TAKES_NOTHING)
    assert placement is not None and placement.nodes.keys() == {"cpu"}
    assert placement.fell_back["TopK"] > 0
    assert sum(placement.fell_back.values()) == placement.nodes["cpu"]


def test_an_older_onnxruntime_tells_it_in_a_profile(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime.capi.onnxruntime_inference_collection import Session

    monkeypatch.delattr(Session, "get_provider_graph_assignment_info")
    with gtp_runtime.load(digits, provider=TAKES_NOTHING) as model:
        placement = model.placement()
    assert placement is not None and placement.nodes.keys() == {"cpu"}
    assert placement.fell_back["TopK"] > 0


def test_the_cpu_alone_has_nothing_to_report(model: Any) -> None:
    assert model.placement() is None


def test_the_words_of_a_placement() -> None:
    placement = place([("cuda", "MatMul"), ("cpu", "TopK"), ("cuda", "Add")], "cuda")
    assert placement == Placement({"cuda": 2, "cpu": 1}, {"TopK": 1})
    assert "TopK 1" in str(placement)


def test_commands_show_and_keep_it(command: Command, digits_copy: Path) -> None:
    how = ["--provider", PROVIDERS[TAKES_NOTHING]]
    shown = document(command("validate", digits_copy, *how, "--json"))
    assert shown["device"] == TAKES_NOTHING and shown["placement"]["fell_back"]["TopK"] > 0
    timed = document(command("bench", digits_copy, *how, "--seconds", "0", "--no-footprint", "--json"))
    assert [file["placement"]["nodes"].keys() for file in timed["files"]] == [{"cpu"}, {"cpu"}]
    kept = read_manifest(digits_copy).measured("latency")["model.onnx"]
    assert (kept["device"], kept["placement"]) == (TAKES_NOTHING, timed["files"][1]["placement"])
    assert "TopK" in command("inspect", digits_copy).out
