"""Files for other runtimes: they answer as the graphs, keep the same tokens, and count only once that is proven."""

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from artifacts import ONE_OF_EACH, Command
from test_ranks import graph_with, outputs

import gtp_runtime
from gtp_exporters import ConversionError, LimitError, ParityFailedError, QuantizationFailedError, convert
from gtp_exporters.converting import environment
from gtp_exporters.converting.environment import Environment
from gtp_exporters.converting.formats import FORMATS, ONNX2TF
from gtp_exporters.converting.rewrites import REWRITES, rewritten
from gtp_exporters.errors import MissingPackageError
from gtp_exporters.graph.emitter import Emitter
from gtp_exporters.graph.files import read, save
from gtp_runtime import read_manifest
from gtp_runtime.backends import BACKENDS, find_backend, make_options
from gtp_runtime.errors import BackendMissingError, GTPRuntimeError, InputError, ManifestError, OutputError
from gtp_runtime.extras import Extra, is_installed
from gtp_runtime.loading import load_twin
from gtp_runtime.manifest import SIGNATURE_NAME, write_manifest

needs_mnn = pytest.mark.skipif(not is_installed("MNN"), reason="the extra mnn is not installed")
needs_onnx2tf = pytest.mark.skipif(
    not ONNX2TF.is_there, reason="gtp-export convert --to litert makes the converter's environment, which is not there"
)
needs_litert = pytest.mark.skipif(not is_installed("ai_edge_litert"), reason="the extra litert is not installed")

needs_executorch = pytest.mark.skipif(not is_installed("executorch"), reason="the extra executorch is not installed")
needs_coremltools = pytest.mark.skipif(not is_installed("coremltools"), reason="the extra coreml is not installed")


@pytest.fixture
def export(digits_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An export that may be changed, whose files are timed for a moment."""
    monkeypatch.setattr("gtp_exporters.proof.SECONDS", 0.1)
    return digits_copy


def test_every_format_has_a_backend_that_runs_its_files() -> None:
    for form in FORMATS.values():
        assert set(form.rewrites) <= set(REWRITES)
        if form.backend is not None:
            assert find_backend(Path(f"model{form.suffix}")).name == form.backend
            assert form.extra in BACKENDS[form.backend].extras
    assert {name for name, form in FORMATS.items() if form.backend is None} == {"coreml"}


def test_rewrites_keep_the_answers() -> None:
    graph = graph_with("measured")
    images = np.random.default_rng(0).standard_normal(graph.graph.inputs[0].shape.numpy()).astype(np.float32)
    changed = rewritten(graph, REWRITES)
    assert not [node for node in changed.graph if node.op_type == "Gelu"]
    assert all(node.inputs[1].is_initializer() for node in changed.graph if node.op_type == "Gemm")
    for before, after in zip(outputs(graph, images), outputs(changed, images), strict=True):
        np.testing.assert_allclose(before, after, rtol=0, atol=1e-5 * max(1, abs(before).max()))


def test_squares_of_a_long_token_stay_in_the_range_of_fp16() -> None:
    """Large models have tokens whose norm is above 256, and its square overflows."""
    graph = graph_with("measured")
    images = np.random.default_rng(0).standard_normal(graph.graph.inputs[0].shape.numpy()).astype(np.float32)
    for weight in graph.graph.initializers.values():
        if "patch_embed" in str(weight.name) and weight.const_value is not None:
            weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1e4), name=weight.name)
    changed = rewritten(graph, ["Norm of a scaled token"])
    np.testing.assert_allclose(outputs(changed, images)[0], outputs(graph, images)[0], rtol=0, atol=1e-4)
    assert _largest(graph, images) > 65504 > _largest(changed, images)


def _largest(graph: ir.Model, images: np.ndarray) -> float:
    """Return the largest sum of squares in a graph."""
    watched = graph.clone()
    watched.graph.outputs.extend(node.outputs[0] for node in watched.graph if node.op_type == "ReduceSum")
    return max(float(np.abs(values).max()) for values in outputs(watched, images)[len(graph.graph.outputs) :])


def test_a_small_minimum_stays() -> None:
    """A converter may take it for 0, by which lengths are divided."""
    value = ir.Value(name="x", shape=ir.Shape([4]), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 20}, name="clip")
    small = ir.tensor(np.array(1e-24, np.float32), name="least")
    least = ir.Value(name="least", shape=ir.Shape([]), type=value.type, const_value=small)
    graph.register_initializer(least)
    clip = ir.node("Clip", [value, least], name="clip")
    clip.outputs[0].name, clip.outputs[0].shape, clip.outputs[0].type = "y", value.shape, value.type
    graph.append(clip)
    graph.outputs.append(clip.outputs[0])
    changed = rewritten(ir.Model(graph, ir_version=10), REWRITES)
    assert not {node.op_type for node in changed.graph} & {"Clip", "Max"}
    numbers = np.array([0, 1, 3e-24, 1e-30], np.float32)
    np.testing.assert_allclose(outputs(changed, numbers)[0], np.maximum(numbers, np.float32(1e-24)), rtol=1e-6)


def test_a_gemm_in_both_turns_and_without_a_summand_is_rewritten() -> None:
    left, right = (ir.Value(name=name, shape=ir.Shape([2, 3]), type=ir.TensorType(ir.DataType.FLOAT)) for name in "ab")
    gemm = ir.node("Gemm", [left, right], {"transA": 1}, name="gemm")
    gemm.outputs[0].name, gemm.outputs[0].shape = "product", ir.Shape([3, 3])
    gemm.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([left, right], [gemm.outputs[0]], nodes=[gemm], opset_imports={"": 20}, name="products")
    changed = rewritten(ir.Model(graph, ir_version=10), REWRITES)
    assert [node.op_type for node in changed.graph] == ["Transpose", "MatMul"]


@needs_mnn
def test_mnn_answers_as_the_graph(export: Path, command: Command) -> None:
    ran = command("convert", export, "--to", "mnn", "--json")
    made = json.loads(ran.out)
    assert ran.code == 0 and [*made["files"]] == ["dense.mnn", "model.mnn"]
    assert made["parity"]["ok"] and made["parity"]["kept_agreement"] == 1
    manifest = read_manifest(export)
    info = manifest.entry("model.mnn").conversion
    assert info is not None and info.onnx_sha256 == manifest.entry("model.onnx").sha256
    assert manifest.results["parity"]["dense.mnn"]["ok"] and manifest.results["latency"]["model.mnn"]["runs"]
    with gtp_runtime.load(export, "mnn", threads=1) as ours, gtp_runtime.load(export, threads=1) as theirs:
        images = ours.prepare(ours.reference().images[::90])
        mine, expected = ours.run_all(images), theirs.run_all(images)
        np.testing.assert_array_equal(mine["propagated"], expected["propagated"])
        np.testing.assert_allclose(mine["logits"], expected["logits"], rtol=0, atol=1e-4)
        twin = load_twin(ours)
        assert twin is not None and twin.path.name == "dense.mnn"
    assert "MNN" in command("inspect", export).out
    assert command("predict", export / "model.mnn", ONE_OF_EACH[7], "--topk", "1").code == 0


@pytest.mark.full
@needs_mnn
@pytest.mark.parametrize("precision", FORMATS["mnn"].precisions[1:])
def test_mnn_answers_with_small_weights_too(export: Path, precision: str) -> None:
    proof = convert(export, "mnn", precision=precision).proof
    assert proof is not None and proof.parity is not None and proof.parity.ok


@needs_mnn
def test_mnn_computes_in_int8_by_measured_scales(export: Path, tmp_path: Path) -> None:
    graph, inputs = tmp_path / "model.onnx", tmp_path / "inputs.npy"
    shutil.copy(export / "dense.onnx", graph)
    images = np.random.default_rng(0).normal(size=(2, 1, 3, 32, 32)).astype(np.float32)
    small, large = tmp_path / "small.mnn", tmp_path / "large.mnn"
    for target, factor in ((small, 0.01), (large, 1)):
        np.save(inputs, images * np.float32(factor))
        FORMATS["mnn"].convert(graph, target, "int8", inputs=inputs)
    assert small.stat().st_size < graph.stat().st_size / 2
    entry = read_manifest(export).entry("dense.onnx")
    answers = []
    for file in (graph, large, small):  # ranges of values that are too small clip
        model = find_backend(file).open(file, entry, make_options(find_backend(file), {"threads": 1}))
        answers.append(model.run({"images": images[0]})["logits"])
        model.close()
    assert np.abs(answers[1] - answers[0]).max() < np.abs(answers[2] - answers[0]).max() / 2


@needs_mnn
def test_a_converted_file_is_of_its_graph(export: Path) -> None:
    """A graph that is replaced by hand leaves the file behind."""
    convert(export, "mnn", check=False)
    manifest = read_manifest(export)
    graph = replace(manifest.entry("model.onnx"), sha256="0" * 64)
    write_manifest(replace(manifest, files={**manifest.files, "model.onnx": graph}), export)
    with pytest.raises(ManifestError, match=r"model\.mnn"):
        gtp_runtime.load(export / "model.mnn")


@needs_mnn
def test_a_damaged_file_is_refused(export: Path) -> None:
    convert(export, "mnn", check=False)
    file = export / "model.mnn"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ManifestError, match="sha256"):
        gtp_runtime.load(file)


@needs_mnn
def test_files_that_answer_otherwise_are_not_kept(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (export / "model.json").read_bytes()
    monkeypatch.setattr("gtp_exporters.converting.run.rewritten", scaled)
    with pytest.raises(ParityFailedError, match=r"parity gates"):
        convert(export, "mnn")
    assert (export / "model.json").read_bytes() == before and not (export / "model.mnn").exists()


def scaled(graph: ir.Model, names: Any) -> ir.Model:
    """Return a graph whose answers are halved: what a converter that fails in silence may make."""
    copy = graph.clone()
    answers = copy.graph.outputs[0]
    emit = Emitter(copy.graph, name="wrong")
    half = ir.node("Mul", [answers, emit.number(0.5)], name="half")
    half.outputs[0].name, half.outputs[0].shape, half.outputs[0].type = "halved", answers.shape, answers.type
    copy.graph.append(half)
    answers.name, half.outputs[0].name = "whole", answers.name
    copy.graph.outputs[0] = half.outputs[0]
    return copy


@pytest.mark.parametrize(("to", "precision", "error"), [("ncnn", "fp32", "litert"), ("mnn", "bf16", "fp32, fp16")])
def test_an_unknown_format_or_precision_is_refused(digits: Path, to: str, precision: str, error: str) -> None:
    with pytest.raises(LimitError, match=error):
        convert(digits, to, precision=precision)


def copy_in_int8(monkeypatch: pytest.MonkeyPatch, change: Callable[[ir.Model], ir.Model]) -> list[np.ndarray]:
    """Add a format "copy", whose files are graphs that are changed; return what its ranges were measured on."""
    measured = []

    def write(graph: Path, target: Path, precision: str, inputs: Path) -> str:
        measured.append(np.load(inputs))
        save(change(read(graph)), target)
        return "1.0"

    made = replace(FORMATS["mnn"], suffix=".copy.onnx", backend="onnxruntime", extra=Extra("export", {}), convert=write)
    made = replace(made, precisions=("fp32", "int8"), rewrites=(), ready=lambda progress: None)
    monkeypatch.setitem(FORMATS, "copy", made)
    return measured


def test_int8_that_fails_its_gate_is_not_kept(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = copy_in_int8(monkeypatch, lambda graph: scaled(graph, ()))
    before = (export / "model.json").read_bytes()
    with pytest.raises(QuantizationFailedError) as failure:
        convert(export, "copy", precision="int8")
    assert failure.value.exit_code == 3 and [report.ok for report in failure.value.reports] == [False, False]
    assert (export / "model.json").read_bytes() == before and not (export / "model.int8.copy.onnx").exists()
    assert [inputs.shape[1:] for inputs in measured] == [(1, 3, 32, 32)] * 2


@pytest.mark.full
def test_int8_that_passes_its_gate_is_listed_with_it(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_in_int8(monkeypatch, lambda graph: graph)
    made = convert(export, "copy", precision="int8")
    assert made.proof is not None and made.proof.parity is not None and made.proof.parity.ok
    results = read_manifest(export).results["quantization"]
    assert results["model.int8.copy.onnx"]["ok"] and results["model.int8.copy.onnx"]["agreement"] == 1


@pytest.mark.parametrize("wrong", [{"calib_data": Path("images")}, {"precision": "int8", "check": False}])
def test_images_are_for_int8_and_int8_is_judged(digits: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(LimitError):
        convert(digits, "litert", **wrong)


def test_a_runtime_that_is_missing_is_named(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gtp_runtime.extras.is_installed", lambda module: module != "MNN")
    with pytest.raises(BackendMissingError, match=r"\[mnn\]"):
        convert(digits, "mnn")


def test_files_that_nothing_here_runs_are_listed_without_results(
    export: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    def write(graph: Path, target: Path, precision: str) -> str:
        target.write_bytes(graph.read_bytes())
        return "9.0"

    made = replace(FORMATS["coreml"], convert=write, ready=lambda progress: None)
    monkeypatch.setitem(FORMATS, "coreml", made)
    ran = command("convert", export, "--to", "coreml", "--precision", "fp16", "--json")
    assert ran.code == 0 and json.loads(ran.out)["parity"] is None
    manifest, name = read_manifest(export), "model.fp16.mlpackage.zip"
    assert manifest.entry(name).precision == "fp16" and manifest.entry(name).conversion is not None
    assert not [kind for kind, results in manifest.results.items() if name in results]
    assert f"{name}: made from model.onnx by coremltools 9.0; not proven" in command("inspect", export).out
    assert command("predict", export / name, ONE_OF_EACH[7]).code == 2
    assert command("convert", export, "--to", "coreml", "--threads", "1").code == 2


def test_a_signed_export_stays_as_it_is(digits_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gtp_runtime.extras.is_installed", lambda module: True)
    (digits_copy / SIGNATURE_NAME).write_bytes(b"signed")
    with pytest.raises(OutputError, match="signed"):
        convert(digits_copy, "mnn")


def test_a_backend_without_its_file_says_what_it_runs(digits: Path) -> None:
    with pytest.raises(InputError, match="convert --to litert"):
        gtp_runtime.load(digits, "litert")


def test_an_environment_that_cannot_be_made_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ran: list[list[str]] = []

    def fail(arguments: list[str], directory: Path | None = None) -> None:
        ran.append(arguments)
        raise ConversionError("no network")

    monkeypatch.setattr(environment, "run", fail)
    own = Environment("converter", "1.0", ("converter==1.0",), (), "1 MB")
    with pytest.raises(MissingPackageError, match="no network"):
        own.ready(lambda *_: None)
    assert "venv" in ran[0] and not own.is_there
    assert not list(own.place.parent.iterdir())


def test_a_program_that_fails_says_its_last_line() -> None:
    import sys

    with pytest.raises(ConversionError, match="too narrow"):
        environment.run([sys.executable, "-c", "import sys; sys.exit('first\\ntoo narrow')"])


@pytest.mark.full
@needs_litert
@needs_onnx2tf
@pytest.mark.parametrize("precision", FORMATS["litert"].precisions)
def test_litert_answers_as_the_graph(export: Path, precision: str) -> None:
    before = (export / "model.onnx").read_bytes()
    made = convert(export, "litert", precision=precision)
    assert made.proof is not None and made.proof.parity is not None and made.proof.parity.ok
    assert made.proof.parity.kept_agreement == 1 or precision != "fp32"
    assert [report.ok for report in made.reports] == ([True, True] if precision == "int8" else [])
    assert (export / "model.onnx").read_bytes() == before, "onnx2tf rewrites its input"
    assert {entry.precision for entry in made.files.values()} == {precision}


@pytest.mark.full
@needs_executorch
def test_executorch_in_int8_passes_the_gate(export: Path) -> None:
    assert all(report.ok for report in convert(export, "executorch", precision="int8").reports)


@pytest.mark.full
@needs_executorch
def test_executorch_answers_as_the_graph(export: Path) -> None:
    made = convert(export, "executorch")
    assert made.proof is not None and made.proof.parity is not None and made.proof.parity.ok
    assert made.proof.parity.kept_agreement == 1
    with gtp_runtime.load(export, "executorch", threads=1) as ours:
        with pytest.raises(InputError, match="threads"):
            gtp_runtime.load(export / "dense.pte", threads=2)
        twin = load_twin(ours)
        assert twin is not None and twin.path.name == "dense.pte"
        twin.close()
    with pytest.raises(GTPRuntimeError, match="closed"):
        ours.run_all(ours.prepare(ours.reference().images[:1]))
    file = export / "model.pte"
    entry, options = read_manifest(export).entry(file.name), BACKENDS["executorch"].options(threads=1)
    file.write_bytes(b"no program")
    with pytest.raises(ManifestError, match=r"model\.pte"):
        BACKENDS["executorch"].open(file, entry, options)


@pytest.mark.full
@needs_coremltools
@pytest.mark.parametrize("precision", FORMATS["coreml"].precisions)
def test_an_ml_program_has_the_weights_in_their_type(export: Path, precision: str) -> None:
    files = convert(export, "coreml", precision=precision).files
    sizes = []
    for name in files:
        with zipfile.ZipFile(export / name) as archive:
            sizes += [info.file_size for info in archive.infolist() if info.filename.endswith("weight.bin")]
    graphs = [read_manifest(export).entry(name).size for name in ("dense.onnx", "model.onnx")]
    expected = [size * (0.5 if precision == "fp16" else 1) for size in graphs]
    np.testing.assert_allclose(sizes, expected, rtol=0.15)
