"""Contexts for Qualcomm's NPU: compiled without a device, proven in the simulator, run only as the manifest says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from artifacts import ONE_OF_EACH, Command

import gtp_runtime
from gtp_exporters import LimitError, convert
from gtp_exporters.converting.formats import FORMATS
from gtp_exporters.converting.rewrites import rewritten
from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.files import read, save
from gtp_runtime import read_manifest
from gtp_runtime.errors import ManifestError
from gtp_runtime.extras import is_installed
from gtp_runtime.loading import load_twin

needs_qnn = pytest.mark.skipif(not is_installed("onnxruntime_qnn"), reason="the extra qnn is not installed")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images of the parity pack prove a file: the simulator is slow."""
    monkeypatch.setitem(FORMATS, "qnn", replace(FORMATS["qnn"], images=4, judges=8))


@needs_qnn
@pytest.mark.usefixtures("few")
def test_contexts_are_proven_in_the_simulator(digits_copy: Path, command: Command) -> None:
    ran = command("build-engine", digits_copy, "--target", "qnn", "--soc", "SM8550", "--json")
    assert ran.code == 0, ran.err
    made = json.loads(ran.out)
    assert [*made["files"]] == ["dense.fp16.qnn", "model.fp16.qnn"] and made["latency"] == []
    assert made["parity"]["ok"] and made["parity"]["images"] == 4
    manifest = read_manifest(digits_copy)
    info = manifest.entry("model.fp16.qnn").conversion
    assert info is not None and (info.to, info.soc) == ("qnn", "SM8550")
    assert info.onnx_sha256 == manifest.entry("model.onnx").sha256
    assert "model.fp16.qnn" in manifest.results["parity"] and "model.fp16.qnn" not in manifest.results["latency"]
    with gtp_runtime.load(digits_copy / "model.fp16.qnn") as model, gtp_runtime.load(digits_copy) as graph:
        image = model.prepare(model.reference().images[:1])
        np.testing.assert_allclose(model.run_all(image)["logits"], graph.run_all(image)["logits"], rtol=0, atol=0.1)
        twin = load_twin(model)
        assert twin is not None and twin.path.name == "dense.fp16.qnn"
        twin.close()
    assert command("predict", digits_copy / "model.fp16.qnn", ONE_OF_EACH[7], "--topk", "1").out.split()[1:2] == ["7"]
    assert "SM8550" in command("inspect", digits_copy).out
    (digits_copy / "model.fp16.qnn").write_bytes((digits_copy / "dense.fp16.qnn").read_bytes())
    with pytest.raises(ManifestError):
        gtp_runtime.load(digits_copy / "model.fp16.qnn")


@needs_qnn
def test_int8_runs_whole_on_the_npu(tiny: Path, tmp_path: Path) -> None:
    graph, inputs, made = tmp_path / "model.onnx", tmp_path / "inputs.npy", tmp_path / "model.int8.qnn"
    source = read(tiny / "model.onnx")
    save(rewritten(infer_shapes(source), FORMATS["qnn"].rewrites), graph)
    image = source.graph.inputs[0]
    assert image.shape is not None
    np.save(inputs, np.random.default_rng(0).normal(size=(2, *image.shape.numpy())).astype(np.float32))
    FORMATS["qnn"].convert(graph, made, "int8", soc="SM8550", inputs=inputs)
    assert made.stat().st_size > 0  # a context is made of all nodes or refused
    quantised = read(graph.with_name("model.int8.onnx")).graph
    weighted = [node for node in quantised if node.op_type == "Gemm" and "weight" in str(node.inputs[1].name)]
    assert weighted
    for node in weighted:
        assert [source.op_type for source in node.predecessors()][:2] == ["DequantizeLinear"] * 2
    chosen = next(node for node in quantised if node.op_type == "TopK")
    assert all(source.op_type != "DequantizeLinear" for source in chosen.predecessors())


@needs_qnn
@pytest.mark.full
@pytest.mark.usefixtures("few")
def test_int8_is_judged_in_the_simulator(digits_copy: Path, command: Command) -> None:
    ran = command("build-engine", digits_copy, "--target", "qnn", "--soc", "SM8550", "--precision", "int8", "--json")
    assert ran.code == 0, ran.err
    made = json.loads(ran.out)
    assert [*made["files"]] == ["dense.int8.qnn", "model.int8.qnn"] and made["parity"]["ok"]
    assert [report["images"] for report in made["gate"]] == [8, 8] and all(report["ok"] for report in made["gate"])
    manifest = read_manifest(digits_copy)
    assert manifest.entry("model.int8.qnn").precision == "int8"
    assert "model.int8.qnn" in manifest.results["quantization"] and "model.int8.qnn" in manifest.results["parity"]


@needs_qnn
@pytest.mark.full
@pytest.mark.usefixtures("few")
def test_times_of_a_simulator_are_not_valid(digits_copy: Path, command: Command) -> None:
    convert(digits_copy, "qnn", soc="SM8650", check=False)
    timed = command("bench", digits_copy / "model.fp16.qnn", "--seconds", "0", "--no-footprint", "--json")
    assert all("simulates" in file["conditions"]["problems"][-1] for file in json.loads(timed.out)["files"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--target", "qnn"],
        ["--soc", "SM8550"],
        ["--target", "qnn", "--soc", "SM1"],
        ["--target", "qnn,sm86", "--soc", "SM8550"],
        ["--target", "qnn", "--soc", "SM8550", "--workspace", "5"],
        ["--data", "images"],
    ],
    ids=" ".join,
)
def test_a_target_and_a_soc_go_together(digits: Path, command: Command, arguments: list[str]) -> None:
    assert command("build-engine", digits, *arguments).code == 2
    assert command("build-engine", digits / "model.onnx", "--target", "qnn", "--soc", "SM8550").code == 2


def test_a_soc_is_for_formats_that_are_compiled_for_one(digits: Path) -> None:
    for to, soc in (("qnn", None), ("qnn", "Exynos"), ("mnn", "SM8550")):
        with pytest.raises(LimitError, match="soc|SoC"):
            convert(digits, to, soc=soc)
