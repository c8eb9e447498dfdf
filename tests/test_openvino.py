"""The OpenVINO backend answers as ONNX Runtime does, from any thread, and refuses what it cannot do."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from artifacts import ONE_OF_EACH, SEVEN, Command
from helpers import images_for, openvino_has, tiny_vit
from onnx_graphs import graph_of
from test_cli import LATENCY, PARITY, document
from test_export_forms import MEASURED

import gtp_runtime
from gtp_exporters.agreement import make_session
from gtp_exporters.graph.describe import write_graph
from gtp_exporters.graph.files import save
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import GTPConfig
from gtp_runtime import Model, read_manifest
from gtp_runtime.backends import find_backend
from gtp_runtime.errors import BackendMissingError, DeviceError, GTPRuntimeError, InputError, ManifestError
from gtp_runtime.manifest import file_sha256, write_manifest
from gtp_runtime.precisions import PRECISIONS

openvino = pytest.importorskip("openvino")

NO_NODE = b"\x08\x08\x3a\x02\x0a\x00"  # an ONNX file with a node that is none


@pytest.fixture(scope="module")
def on_openvino(digits: Path) -> Model:
    return gtp_runtime.load(digits, "openvino", threads=1)


def check_close(logits: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(logits - expected).max() < PRECISIONS["fp32"].parity.error * np.abs(expected).max()


def test_outputs_have_the_names_of_the_graph(tmp_path: Path) -> None:
    """OpenVINO leaves out a Cast to the type that it has already, and then knows its output by two names."""
    text = """<ir_version: 9, opset_import: ["" : 18]>
    two (float[1,6] images) => (float[1,6] logits, int32[1,4] propagated) <int64[1] k = {2}> {
    logits = Neg(images)
    smallest, first = TopK(logits, k)
    largest, second = TopK(images, k)
    all = Concat<axis = 1>(first, second)
    propagated = Cast<to = 6>(all) }"""
    graph = ir.from_proto(onnx.parser.parse_model(text))
    entry = write_graph(tmp_path / "model.onnx", graph, "model", "fp32", "gtp", 1)["model.onnx"]
    backend = find_backend(tmp_path / "model.onnx", "openvino")
    run = backend.open(tmp_path / "model.onnx", entry, backend.options(threads=1))
    answers = run.run({"images": np.arange(6, dtype=np.float32)[None]})
    assert list(answers) == ["logits", "propagated"]
    assert answers["propagated"].tolist() == [[0, 1, 5, 4]] and answers["logits"].tolist() == [[0, -1, -2, -3, -4, -5]]


def test_answers_as_onnxruntime_does(on_openvino: Model, model: Model) -> None:
    images = model.prepare(model.reference().images[::6])
    ours, theirs = on_openvino.run_all(images), model.run_all(images)
    assert ours.keys() == theirs.keys() == {"logits", "propagated"}
    check_close(ours["logits"], theirs["logits"])
    np.testing.assert_array_equal(ours["propagated"], theirs["propagated"])
    assert {name: value.dtype for name, value in ours.items()} == {name: value.dtype for name, value in theirs.items()}
    assert on_openvino.predict(SEVEN)[0].label == "7"


def test_parity_holds(digits: Path) -> None:
    for name in ("model.onnx", "dense.onnx"):
        with gtp_runtime.load(digits / name, "openvino") as loaded:
            parity = loaded.validate()
        assert parity.ok, parity.problems


@pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")
def test_a_batch(tiny: Path, batched: Model) -> None:
    images = np.stack([batched.preprocess(image) for image in ONE_OF_EACH[:4]])
    with gtp_runtime.load(tiny, "openvino", threads=1) as loaded:
        ours, theirs = loaded.run_all(images), batched.run_all(images)
    check_close(ours["logits"], theirs["logits"])
    np.testing.assert_array_equal(ours["propagated"], theirs["propagated"])


def test_several_threads_run_at_once(on_openvino: Model) -> None:
    inputs = [on_openvino.preprocess(image)[None] for image in ONE_OF_EACH]
    expected = [on_openvino.run(images) for images in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(on_openvino.run, inputs * 5))
    assert np.array_equal(found, expected * 5)
    assert on_openvino.backend._requests.qsize() <= 4  # type: ignore[attr-defined]


def test_answers_and_inputs_are_the_callers(on_openvino: Model) -> None:
    one, other = (on_openvino.preprocess(image)[None] for image in ONE_OF_EACH[:2])
    first = on_openvino.run(one)
    before = first.copy()
    on_openvino.run(other)
    assert np.array_equal(first, before), "a later run leaves earlier answers alone"
    one.flags.writeable = False
    assert np.array_equal(on_openvino.run(one), before)
    scattered = np.ascontiguousarray(one.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not scattered.flags.c_contiguous
    assert np.array_equal(on_openvino.run(scattered), before)


@pytest.mark.skipif(not openvino_has("BF16"), reason="this CPU has no bf16")
def test_bf16_runs(digits: Path) -> None:
    with gtp_runtime.load(digits, "openvino", compute="bf16") as loaded:
        assert np.isfinite(loaded.run(loaded.sample())).all()
        parity = loaded.validate()
        assert (parity.precision, parity.ok) == ("bf16", True), parity.problems
        assert loaded.backend.info["compute"] == "bf16"


@pytest.mark.skipif(openvino_has("BF16"), reason="this CPU has bf16")
def test_a_precision_that_the_cpu_lacks_is_refused(digits: Path) -> None:
    with pytest.raises(DeviceError, match="compute"):
        gtp_runtime.load(digits, "openvino", compute="bf16")


def test_closes(digits: Path) -> None:
    with gtp_runtime.load(digits, "openvino") as loaded:
        images = loaded.sample()
        loaded.run(images)
    loaded.close()
    with pytest.raises(GTPRuntimeError, match="was closed"):
        loaded.run(images)


def test_what_it_refuses(digits_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model.engine", "broken.onnx"):
        (digits_copy / name).write_bytes(NO_NODE)
        manifest = read_manifest(digits_copy)
        entry = replace(manifest.entry("model.onnx"), sha256=file_sha256(digits_copy / name), size=len(NO_NODE))
        write_manifest(replace(manifest, files={**manifest.files, name: entry}), digits_copy)
    with pytest.raises(InputError, match=r"'openvino' .*model\.engine"):
        gtp_runtime.load(digits_copy / "model.engine", "openvino")
    with pytest.raises(ManifestError, match=r"OpenVINO .*broken\.onnx"):
        gtp_runtime.load(digits_copy / "broken.onnx", "openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendMissingError, match=r"pip install 'gtp-export\[openvino\]'"):
        gtp_runtime.load(digits_copy, "openvino")


@pytest.mark.full
def test_commands(command: Command, digits_copy: Path) -> None:
    found = document(command("validate", digits_copy, "--backend", "openvino", "--json"))
    assert found.keys() >= PARITY
    assert (found["ok"], found["kept_agreement"]) == (True, 1.0)
    found = document(command("bench", digits_copy, "--backend", "openvino", "--seconds", "0.1", "--json"))
    assert [(entry["name"], entry["compute"], entry["threads"]) for entry in found["backends"]] == [
        ("openvino", "fp32", 1)
    ] * 2
    assert all(result.keys() >= LATENCY for result in found["files"])
    assert read_manifest(digits_copy).results["latency"]["model.onnx"]["compute"] == "fp32"
    assert "openvino" in command("bench", digits_copy, "--backend", "openvino", "--no-footprint", "--seconds", "0").out
    assert command("validate", digits_copy, "--backend", "openvino", "--compute", "int8").code == 2


def test_scores_of_several_images_are_added_to_right(tmp_path: Path) -> None:
    """OpenVINO adds the bonus of the prefix tokens within the reduction of the scores: whose axis must not be gone."""
    model = tiny_vit(depth=2)
    apply(model, GTPConfig(num_prop=3, **MEASURED))
    graph = graph_of(model, 3)
    save(graph, tmp_path / "model.onnx")
    images = images_for(model, 3).numpy()
    compiled = openvino.Core().compile_model(str(tmp_path / "model.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    logits, *left = make_session(graph).run(None, {"images": images})
    check_close(compiled(images)[0], logits)
    for index, ids in enumerate(left, 1):
        np.testing.assert_array_equal(compiled(images)[index], ids)
