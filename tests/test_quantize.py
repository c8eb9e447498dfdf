"""int8: quantised by structure, in the form of each target, judged before it counts."""

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from artifacts import DIGITS, SEVEN, TINY, Command, python
from helpers import openvino_has

from gtp_exporters import ExportOptions, LimitError, QuantizationFailedError, QuantizeOptions, export, quantize
from gtp_exporters.graph.check import check_static, infer_shapes
from gtp_exporters.graph.files import read
from gtp_exporters.graph.precision import precision_of
from gtp_exporters.graph.structure import Product, attention_logits, constant_products, deciding_nodes
from gtp_exporters.measuring import gate
from gtp_exporters.measuring.gate import judge
from gtp_exporters.quantizing.calibration import RUNS
from gtp_exporters.quantizing.calibration import _parts as handed_over
from gtp_exporters.quantizing.images import choose, held_out, read_pixels
from gtp_exporters.quantizing.job import Attempt, Job
from gtp_exporters.quantizing.search import fewest, worst
from gtp_exporters.quantizing.sensitivity import LayerLoss
from gtp_runtime import load
from gtp_runtime.accuracy import divergence
from gtp_runtime.errors import ImageError, InputError, ManifestError
from gtp_runtime.images.folders import find_images
from gtp_runtime.manifest import read_manifest, twin, update_manifest
from gtp_runtime.precisions import PRECISIONS, GateLimits
from gtp_runtime.question import question_of
from gtp_runtime.reference import read_reference

LIMITS = PRECISIONS["int8"].gate
assert LIMITS is not None
STRICT = replace(LIMITS, divergence=1e-9)
NOTHING = GateLimits(agreement=0, drop=100, divergence=np.inf, cosine=-1, overlap=-np.inf)


def set_limits(monkeypatch: pytest.MonkeyPatch, limits: GateLimits) -> None:
    monkeypatch.setitem(PRECISIONS, "int8", replace(PRECISIONS["int8"], gate=limits))


@pytest.fixture(scope="module")
def quantized(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The digits export with int8 files for a target; a test that changes it takes ``int8_copy``."""
    made: dict[str, Path] = {}

    def for_target(target: str) -> Path:
        if target not in made:
            place = tmp_path_factory.mktemp("int8") / target
            shutil.copytree(digits, place)
            quantize(place, QuantizeOptions(target))
            made[target] = place
        return made[target]

    return for_target


@pytest.fixture
def int8_copy(quantized: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(quantized("onnxruntime"), tmp_path / "int8"))


@pytest.fixture
def tiny_int8(tiny: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A tiny export with int8 files, and the images that they were made on."""
    place, folder = Path(shutil.copytree(tiny, tmp_path / "tiny")), images(tmp_path / "folder", 130)
    quantize(place, QuantizeOptions("onnxruntime", folder, gate=False))
    return place, folder


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_digits_from_end_to_end(digits_copy: Path, command: Command) -> None:
    ran = command("quantize", digits_copy, "--target", "onnxruntime")
    assert ran.code == 0, ran.err
    assert ran.last == f"next: gtp-export bench {digits_copy} --precision int8"
    assert "model.int8.onnx ok on 360 images (the recipe's own)" in ran.out
    assert "measuring ranges of model.onnx" in ran.err
    manifest = read_manifest(digits_copy)
    for name, role in (("model", "model"), ("dense", "dense")):
        entry = manifest.entry(f"{name}.int8.onnx")
        assert (entry.role, entry.precision, entry.macs) == (role, "int8", manifest.entry(f"{name}.onnx").macs)
        assert entry.sha256 == sha(digits_copy / f"{name}.int8.onnx")
        assert entry.size < 0.4 * manifest.entry(f"{name}.onnx").size
        assert entry.quantization is not None
        assert (entry.quantization.target, entry.quantization.images) == ("onnxruntime", 100)
        assert manifest.results["quantization"][f"{name}.int8.onnx"]["ok"]
    assert twin(digits_copy / "model.int8.onnx") == digits_copy / "dense.int8.onnx"
    assert twin(digits_copy / "model.onnx") == digits_copy / "dense.onnx"


def test_the_commands_that_run_files_take_the_precision(int8_copy: Path, command: Command) -> None:
    ran = command("validate", int8_copy, "--precision", "int8", "--json")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert (document["precision"], Path(document["file"]).name) == ("int8", "model.int8.onnx")
    ran = command("bench", int8_copy, "--precision", "int8", "--no-footprint", "--seconds", 0, "--json")
    files = [Path(entry["file"]).name for entry in json.loads(ran.out)["files"]]
    assert files == ["dense.int8.onnx", "model.int8.onnx"]
    answered = json.loads(command("predict", int8_copy, SEVEN, "--precision", "int8", "--json").out)
    assert answered["images"][0]["predictions"][0]["label"] == "7"
    ran = command("inspect", int8_copy)
    assert "model.int8.onnx: for onnxruntime, 37 products in int8, uint8 activations, minmax on 100 images" in ran.out
    ran = command("predict", int8_copy / "model.int8.onnx", SEVEN, "--precision", "int8")
    assert ran.code == 2
    assert "is a file and has its own precision" in ran.error
    ran = command("predict", int8_copy, SEVEN, "--precision", "fp16")
    assert ran.code == 1
    assert "has no fp16 graph, it has fp32, int8" in ran.error


def test_weights_take_as_many_bits_as_the_cpu_multiplies_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    for saturates, bits in ((True, 7), (False, 8)):
        monkeypatch.setattr("gtp_exporters.quantizing.options.saturates_int8", lambda saturates=saturates: saturates)
        made = {target: QuantizeOptions(target).form.weight_bits for target in ("onnxruntime", "openvino", "tensorrt")}
        assert made == {"onnxruntime": bits, "openvino": bits, "tensorrt": 8}, "TensorRT runs on no such CPU"
        assert QuantizeOptions("openvino", weight_bits=7).form.weight_bits == 7
        assert QuantizeOptions("openvino", weight_bits=8).form.weight_bits == 8
    with pytest.raises(LimitError, match="weight_bits"):
        QuantizeOptions("openvino", weight_bits=6)


@pytest.mark.parametrize(("bits", "largest"), [(7, 64), (8, 127)])
def test_codes_of_weights_keep_to_their_bits(tiny: Path, tmp_path: Path, bits: int, largest: int) -> None:
    place, folder = Path(shutil.copytree(tiny, tmp_path / "tiny")), images(tmp_path / "folder", 130)
    quantize(place, QuantizeOptions("onnxruntime", folder, gate=False, weight_bits=bits))
    tensors = [value.const_value for value in read(place / "model.int8.onnx").graph.initializers.values()]
    codes = [tensor.numpy() for tensor in tensors if tensor is not None and tensor.dtype == ir.DataType.INT8]
    assert max(int(np.abs(code.astype(int)).max()) for code in codes) == largest
    entry = read_manifest(place).entry("model.int8.onnx")
    assert entry.quantization is not None and entry.quantization.weight_bits == bits


@pytest.mark.full
def test_it_runs_in_openvino(quantized: Callable[[str], Path]) -> None:
    pytest.importorskip("openvino")
    with load(quantized("openvino"), "openvino", precision="int8", threads=1) as model:
        assert model.validate().ok
    if openvino_has("BF16"):
        with load(quantized("openvino"), "openvino", precision="int8", threads=1, compute="bf16") as model:
            assert model.validate().precision == "int8"


@pytest.mark.full
def test_tensorrt_builds_it(quantized: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from gtp_exporters import EngineOptions, build_engine

    place = Path(shutil.copytree(quantized("tensorrt"), tmp_path / "trt"))
    for name in ("model", "dense"):
        engine = build_engine(place / f"{name}.int8.onnx", flavor="rtx", options=EngineOptions(targets=("sm86",)))
        assert (engine.path.name, engine.entry.precision) == (f"{name}.int8.engine", "int8")
    with pytest.raises(LimitError, match="quantize DIR measures ranges on images"):
        build_engine(place, precision="int8", flavor="rtx", options=EngineOptions(targets=("sm86",)))


def graph_of(place: Path, name: str = "model.int8.onnx") -> ir.Model:
    return infer_shapes(read(place / name))


def producers(node: ir.Node) -> list[str]:
    """Return the operators that the two factors of a product come from; "" for weights."""
    factors = [value for value in node.inputs[:2] if value is not None]
    return [producer.op_type if (producer := value.producer()) else "" for value in factors]


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", pytest.param("tensorrt", marks=pytest.mark.full)])
def test_each_target_has_its_form(quantized: Callable[[str], Path], target: str) -> None:
    model = graph_of(quantized(target))
    check_static(model, target)
    assert precision_of(model) == "int8"
    quantizing = [node for node in model.graph if node.op_type == "QuantizeLinear"]
    zeros = [node.inputs[2].const_value for node in quantizing if node.inputs[2] is not None]
    kinds = {zero.dtype for zero in zeros if zero is not None}
    symmetric = target == "tensorrt"
    assert kinds == {ir.DataType.INT8 if symmetric else ir.DataType.UINT8}
    assert len(zeros) == len(quantizing)
    if symmetric:
        assert not any(zero.numpy().any() for zero in zeros if zero is not None)
    int32 = {value.dtype for value in model.graph.initializers.values()} & {ir.DataType.INT32}
    assert bool(int32) == (target == "onnxruntime")


def test_products_with_weights_are_int8_and_attention_and_decisions_float(quantized: Callable[[str], Path]) -> None:
    for target in ("onnxruntime", "tensorrt"):
        place = quantized(target)
        constant = {product.node for product in constant_products(graph_of(place, "model.onnx"), embedding=False)}
        graph = graph_of(place).graph
        deciding = deciding_nodes(graph)
        assert {node.op_type for node in deciding} >= {"TopK", "Softmax", "Gemm"}
        for node in graph:
            if node.op_type in ("Gemm", "MatMul"):
                assert producers(node) == ["DequantizeLinear"] * 2 or "DequantizeLinear" not in producers(node)
                assert (node.name in constant) == ("DequantizeLinear" in producers(node)), node.name
            assert node not in deciding or "DequantizeLinear" not in producers(node)
        assert len([product for node in graph for product in attention_logits(node)]) == 6


def test_weights_are_quantised_by_channel(quantized: Callable[[str], Path]) -> None:
    weights = [node for node in graph_of(quantized("onnxruntime")).graph if node.op_type == "DequantizeLinear"]
    sizes = [
        (scale.shape, value.shape[node.attributes["axis"].as_int()])
        for node in weights
        if (value := node.inputs[0]) is not None and (scale := node.inputs[1]) is not None
        if value.shape is not None and value.dtype == ir.DataType.INT8
    ]
    assert len(sizes) == 37
    assert all(scales == (channels,) for scales, channels in sizes)


@pytest.mark.full
def test_the_switch_quantises_what_decides(digits_copy: Path) -> None:
    made = quantize(digits_copy, QuantizeOptions("onnxruntime", selection=True, gate=False))
    graph = graph_of(digits_copy).graph
    deciding = deciding_nodes(graph)
    assert [producers(node) for node in deciding if node.op_type == "Gemm"] == [["DequantizeLinear"] * 2] * 6
    entry = read_manifest(digits_copy).entry("model.int8.onnx")
    assert entry.quantization is not None and entry.quantization.selection
    assert made.reports[1].layers[0].overlap < 1


@pytest.mark.full
def test_the_reduced_and_the_dense_file_are_quantised_alike(digits_copy: Path) -> None:
    made = quantize(digits_copy, QuantizeOptions("onnxruntime", keep_fp32=("blocks.0.attn.qkv", "head"), gate=False))
    assert made.kept_fp32 == ["blocks.0.attn.qkv", "head"]
    assert made.cost is not None and made.cost > 0
    entries = [read_manifest(digits_copy).entry(name) for name in ("dense.int8.onnx", "model.int8.onnx")]
    assert [entry.quantization for entry in entries] == [entries[0].quantization] * 2
    assert entries[0].quantization is not None and entries[0].quantization.products == 33
    assert precision_of(graph_of(digits_copy)) == "int8"


def test_a_gate_that_fails_keeps_the_figures_and_the_earlier_files(
    tiny_int8: tuple[Path, Path], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, folder = tiny_int8
    before = {path.name: sha(path) for path in place.iterdir() if path.name != "model.json"}
    set_limits(monkeypatch, STRICT)
    ran = command("quantize", place, "--target", "onnxruntime", "--calib-data", folder, "--json")
    assert ran.code == 3
    document = json.loads(ran.out)
    assert not document["ok"]
    assert [entry["file"] for entry in document["files"]] == ["dense.int8.onnx", "model.int8.onnx"]
    losses = [entry["loss"] for entry in document["losses"]]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 2 * 4 + 1
    assert f"the layers that lose most: {document['losses'][0]['layer']}" in ran.error
    assert {path.name: sha(path) for path in place.iterdir() if path.name != "model.json"} == before
    failed = read_manifest(place).results["quantization_failed"]["model.int8.onnx"]
    assert failed["divergence"] == document["files"][1]["divergence"]
    assert read_manifest(place).entry("model.int8.onnx").sha256 == before["model.int8.onnx"]
    assert "model.int8.onnx: last attempt failed its gate: divergence" in command("inspect", place).out
    quantize(place, QuantizeOptions("onnxruntime", folder, gate=False))
    assert "quantization_failed" not in read_manifest(place).results


def test_layers_are_left_out_until_the_gate_passes(
    tiny_int8: tuple[Path, Path], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, folder = tiny_int8
    cosines = [entry["cosine"] for entry in read_manifest(place).results["quantization"].values()]
    set_limits(monkeypatch, replace(NOTHING, cosine=1 - (1 - min(cosines)) / 4))
    ran = command("quantize", place, "--target", "onnxruntime", "--calib-data", folder, "--keep-fp32", "auto")
    assert ran.code == 0, ran.err
    info = read_manifest(place).entry("model.int8.onnx").quantization
    assert info is not None
    assert 0 < len(info.kept_fp32) <= 9
    assert f"kept in fp32: {', '.join(info.kept_fp32)}, which takes " in ran.out
    assert "of the time with all in int8" in ran.out


def test_as_few_as_pass_are_left_out() -> None:
    tried: list[int] = []

    def attempt(chosen: Any) -> int:
        tried.append(len(chosen))
        return len(chosen)

    for needed in range(1, 12):
        assert fewest("abcdefghijk", attempt, lambda count, needed=needed: count >= needed) == needed
    assert max(tried) == 11
    assert fewest("abc", attempt, lambda count: False) == 3


def test_without_being_told_no_more_than_two_products_are_left_out() -> None:
    layers = {"blocks.0.attn.qkv": 3, "blocks.0.mlp.fc2": 1, "blocks.1.attn.qkv": 3, "head": 1, "blocks.1.mlp.fc2": 1}
    losses = [LayerLoss(name, 1 / place) for place, name in enumerate(layers, 1)]
    products = [Product(f"{name}.{number}", name, ()) for name, count in layers.items() for number in range(count)]
    assert worst(losses, products) == ["blocks.0.mlp.fc2", "head"]


def test_the_judges_choose_no_layers(tiny_int8: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    place, folder = tiny_int8
    judged: list[tuple[str, int]] = []

    def attempt(self: Job, kept: Collection[str]) -> Attempt:
        judged.append((self.judges.origin, len(kept)))
        return Attempt(self, self.source.model, tuple(kept), replace(passing, problems=[] if len(kept) > 1 else ["no"]))

    passing = judge("file", *[{"logits": np.eye(3, dtype=np.float32)}] * 2, None, "here", [], 4, NOTHING)
    monkeypatch.setattr(Job, "attempt", attempt)
    monkeypatch.setattr(Job, "losses", lambda self, probes: [LayerLoss(name, 0.1) for name in self.source.labels])
    options = QuantizeOptions("onnxruntime", folder, keep_fp32=("auto",))
    quantize(place, options)
    origin = judged[0][0]
    assert [kept for where, kept in judged if where == origin] == [0, 0, 2, 2]
    assert [kept for where, kept in judged if where != origin] == [1, 1, 2, 2]


def judged(found: np.ndarray, twin: np.ndarray, name: str = "logits", **limits: float) -> gate.GateReport:
    labels = np.zeros(len(twin), np.int64)
    question = question_of(name)
    return judge("file", {name: found}, {name: twin}, labels, "here", [], 4, replace(LIMITS, **limits), question)


def test_logits_of_each_pixel_are_no_classes_of_an_image() -> None:
    """Modules of transformers that segment call their map "logits"."""
    twin = {"logits": np.random.default_rng(0).normal(size=(4, 6, 3, 3)).astype(np.float32)}
    near = {"logits": twin["logits"] * np.float32(1.001)}
    report = judge("file", near, twin, None, "here", [], 4, LIMITS, question_of("dense"))
    assert report.ok and report.flips is report.divergence is report.loss.agreement is None
    assert not gate.hopeless(near, twin, LIMITS, question_of("dense"))


def test_every_limit_of_the_gate_is_named() -> None:
    twin_answers = np.tile(np.asarray([[4.0, 0, 0]], np.float32), (8, 1))
    assert judged(twin_answers, twin_answers).ok
    wrong = twin_answers.copy()
    wrong[0] = [0, 4, 0]
    said = "; ".join(judged(wrong, twin_answers).problems)
    assert "agreement 87.5%" in said
    assert "12.50 points below fp32, limit 1 (--max-drop)" in said
    assert "nats (mean), limit 0.02; cosine 0.8750 (mean), limit 0.99" in said
    wrong[1] = np.nan
    assert judged(wrong, twin_answers).problems[0] == "some answers are not finite"
    assert not judged(np.full_like(wrong, np.nan), twin_answers, agreement=0, drop=100).ok
    features = judged(wrong[2:], twin_answers[2:], "features")
    assert features.ok and features.loss.agreement is features.divergence is features.drop is None


def images(place: Path, count: int, *, alike: bool = False) -> Path:
    place.mkdir()
    known = sorted((DIGITS / "calibration").rglob("*.png"))
    for index in range(count):
        shutil.copy(known[0 if alike else index % len(known)], place / f"{index}.png")
    return place


@pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")
def test_several_labels_an_image_are_judged_by_class(tiny: Path, tmp_path: Path) -> None:
    place, folder = Path(shutil.copytree(tiny, tmp_path / "labels")), images(tmp_path / "folder", 130)
    sigmoid = replace(read_manifest(place).model, activation="sigmoid")
    update_manifest(place, lambda manifest: replace(manifest, model=sigmoid))
    made = quantize(place, QuantizeOptions("onnxruntime", folder, gate=False))
    _, judges = choose(read_manifest(place), read_reference(place / "reference.npz"), folder, 512, None)
    for report in made.reports:
        exact, rounded = (load(place / name, threads=1) for name in (report.file.replace(".int8", ""), report.file))
        assert rounded.manifest.model.activation == "sigmoid"
        twin, logits = (run.logits(run.prepare(judges.pixels), range(len(judges.pixels))) for run in (exact, rounded))
        assert report.divergence == pytest.approx(divergence(twin, logits, "sigmoid").mean(), rel=1e-3)
        assert report.loss.agreement == pytest.approx(((twin > 0) == (logits > 0)).all(1).mean())


def test_wrong_images_are_refused(digits_copy: Path, tmp_path: Path) -> None:
    def refused(message: str, folder: Path, data: Path | None = None) -> None:
        with pytest.raises(ImageError, match=message):
            quantize(digits_copy, QuantizeOptions("onnxruntime", folder, data=data))
        assert not (digits_copy / "model.int8.onnx").exists()

    refused("15 images of .*few are too few to calibrate on: give 16 or more", images(tmp_path / "few", 15))
    refused("only 1 of 20 calibration images differ", images(tmp_path / "alike", 20, alike=True))
    refused("no folder", tmp_path / "missing")
    same = images(tmp_path / "same", 40)
    refused("--data has 0 images that calibration does not see: give 32 or more", same, same)
    broken = images(tmp_path / "broken", 20)
    (broken / "3.png").write_bytes(b"no image")
    refused("3.png", broken)


def test_images_that_are_all_in_the_parity_pack_are_said(digits_copy: Path, tmp_path: Path) -> None:
    """``export --data`` and ``quantize --calib-data`` with the same folder: none is left to calibrate on."""
    folder = images(tmp_path / "photos", 48)
    manifest = read_manifest(digits_copy)
    pixels = read_pixels(manifest, find_images(folder))
    pack = replace(read_reference(digits_copy / "reference.npz"), images=pixels)
    with pytest.raises(ImageError) as refused:
        choose(manifest, pack, folder, 512, None)
    assert all(said in str(refused.value) for said in ("48 of the 48 images", "parity pack", "--calib-data", "--data"))


def test_images_are_held_out_in_linear_time() -> None:
    hashed: list[Path] = []

    class Counted(type(Path())):  # type: ignore[misc]
        def __eq__(self, other: object) -> bool:
            hashed.append(self)
            return super().__eq__(other)

        def __hash__(self) -> int:
            hashed.append(self)
            return int(super().__hash__())

    paths = [Counted(f"{index}.png") for index in range(1000)]
    rest, held = held_out(paths)
    assert len(hashed) <= 4 * len(paths)
    assert (len(rest), len(held)) == (750, 250) and not set(rest) & set(held)
    assert held[:2] == [paths[3], paths[7]]


def test_wrong_options_are_refused(digits_copy: Path, tmp_path: Path, command: Command) -> None:
    for given, message in (
        ({"target": "cuda"}, "target='cuda' is unknown: choose one of onnxruntime, tensorrt, openvino"),
        ({"target": "onnxruntime", "calibration": "mean"}, "calibration='mean' is unknown"),
        ({"target": "onnxruntime", "keep_fp32": ("auto", "head")}, "auto or names of layers, not both"),
        ({"target": "onnxruntime", "calib_size": 0}, "calib_size=0"),
        ({"target": "onnxruntime", "gate": False, "max_drop": 1.0}, "without a gate there is no limit to keep"),
    ):
        with pytest.raises(LimitError, match=message):
            QuantizeOptions(**given)  # type: ignore[arg-type]
    with pytest.raises(LimitError, match=r"no layer is called neck: there are blocks\.0\.attn\.qkv, "):
        quantize(digits_copy, QuantizeOptions("onnxruntime", keep_fp32=("neck",)))
    with pytest.raises(InputError):
        load(digits_copy / "model.onnx", precision="fp32")
    ran = command("quantize", tmp_path, "--target", "onnxruntime")
    assert ran.code == 1
    assert "no manifest" in ran.error
    (digits_copy / "dense.onnx").unlink()
    with pytest.raises(ManifestError, match=r"no file .*dense\.onnx"):
        quantize(digits_copy, QuantizeOptions("onnxruntime"))


def test_a_directory_without_float32_graphs_and_one_without_images_are_refused(tiny: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    with pytest.raises(LimitError, match="tiny has no calibration images of its own: give --calib-data DIR"):
        quantize(place, QuantizeOptions("onnxruntime"))
    with pytest.raises(ImageError, match=r"128 or more are needed, as one in 4 is held out"):
        quantize(place, QuantizeOptions("onnxruntime", images(tmp_path / "images", 20)))
    manifest = json.loads((place / "model.json").read_text("utf-8"))
    for name in ("model.onnx", "dense.onnx"):
        manifest["files"][name]["precision"] = "fp16"
    (place / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(LimitError, match="int8 is made from a float32 graph, and those there are fp16"):
        quantize(place, QuantizeOptions("onnxruntime"))


def test_calibration_images_are_read_a_few_at_a_time() -> None:
    """The calibrators of histograms keep all values of the images that they are handed until they have counted them."""
    read = list[int]()

    def batches() -> Iterator[np.ndarray]:
        for number in range(3 * RUNS + 1):
            read.append(number)
            yield np.asarray(number)

    for done, part in enumerate(handed_over(batches()), 1):
        assert len(part) <= RUNS
        assert len(read) <= RUNS * done, "none is read ahead"
    assert len(read) == 3 * RUNS + 1


@pytest.mark.parametrize("calibration", ["percentile", pytest.param("entropy", marks=pytest.mark.full)])
def test_batches_and_other_calibrations(tiny: Path, tmp_path: Path, calibration: str) -> None:
    """Three images a run, a part of the folder is held out, and weights share biases."""
    place = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    folder = images(tmp_path / "images", 130)
    made = quantize(place, QuantizeOptions("onnxruntime", folder, 20, calibration, gate=False))
    assert (made.reports[1].loss.images, made.reports[1].origin) == (32, "held out of images")
    info = read_manifest(place).entry("model.int8.onnx").quantization
    assert info is not None and (info.images, info.calibration) == (20, calibration)
    assert made.reports[1].cosine > 0.9


@pytest.mark.full
def test_it_needs_no_torch(digits_copy: Path) -> None:
    code = "from gtp_exporters import QuantizeOptions as O, quantize; quantize(sys.argv[1], O('onnxruntime'))"
    ran = python(f"{code}; print([name for name in ('torch', 'timm') if name in sys.modules])", str(digits_copy))
    assert ran.last == "[]", ran.err


@pytest.mark.full
@pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")
def test_an_export_can_be_quantised_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, place = images(tmp_path / "images", 130), tmp_path / "made"
    options = ExportOptions(target="onnxruntime", precision="int8", calib_data=folder, data=folder)
    set_limits(monkeypatch, NOTHING)
    proof = export(TINY, place, weights="random", options=options).proof
    assert proof is not None
    assert [entry.file for entry in proof.latency] == ["dense.onnx", "dense.int8.onnx", "model.onnx", "model.int8.onnx"]
    assert set(read_manifest(place).files) == {"reference.npz", "report.html", *(entry.file for entry in proof.latency)}
    before = {path.name: sha(path) for path in place.iterdir()}
    set_limits(monkeypatch, STRICT)
    with pytest.raises(QuantizationFailedError, match="int8 failed its gate"):
        export(TINY, place, weights="random", options=options)
    assert {path.name: sha(path) for path in place.iterdir()} == before
