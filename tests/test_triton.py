"""Model repositories of Triton: read by its own protobuf, asked by its own client, and batched by the front model."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from artifacts import ONE_OF_EACH, TINY, Command
from google.protobuf import json_format, text_format
from tritonclient.grpc import InferInput, InferRequestedOutput, model_config_pb2
from tritonclient.utils import np_to_triton_dtype

import gtp_runtime
from gtp_exporters import ExportOptions, export
from gtp_exporters.errors import LimitError
from gtp_exporters.triton import TritonOptions, write_repository
from gtp_exporters.triton.models import Word, pbtxt
from gtp_runtime import Model, read_manifest
from gtp_runtime.errors import BackendMissingError, ManifestError, OutputError
from gtp_runtime.manifest import BatchRange, EngineInfo, FileEntry, file_sha256, write_manifest


def config_of(folder: Path) -> Any:
    """Read a configuration as Triton does."""
    return text_format.Parse((folder / "config.pbtxt").read_text("ascii"), model_config_pb2.ModelConfig())


def request_for(config: Any, arrays: dict[str, np.ndarray]) -> list[InferInput]:
    """Shape a request with Triton's client; it must fit the configuration."""
    inputs = []
    for spec in config.input:
        array = arrays[spec.name]
        kind = model_config_pb2.DataType.Name(spec.data_type).removeprefix("TYPE_")
        assert np_to_triton_dtype(array.dtype) == kind
        assert list(array.shape) == ([len(array)] if config.max_batch_size else []) + list(spec.dims)
        inputs.append(InferInput(spec.name, list(array.shape), kind))
        inputs[-1].set_data_from_numpy(array)
    return inputs


@pytest.fixture
def engine(digits_copy: Path) -> Path:
    """An engine in name: what Triton is told of it does not depend on its content."""
    path = digits_copy / "model.engine"
    path.write_bytes(b"a plan")
    manifest = read_manifest(digits_copy)
    graph = manifest.entry("model.onnx")
    info = EngineInfo("tensorrt", "10.3", "model.onnx", graph.sha256, layers=3, build_seconds=1.0)
    entry = replace(graph, sha256=file_sha256(path), size=6, engine=info)
    write_manifest(replace(manifest, files=manifest.files | {path.name: entry}), digits_copy)
    return path


def test_an_onnx_model(digits: Path, model: Model, tmp_path: Path) -> None:
    options = TritonOptions(instances=2, kind="cpu")
    assert write_repository([digits], tmp_path / "repo", options) == [tmp_path / "repo" / "digits"]
    folder = tmp_path / "repo" / "digits"
    config = config_of(folder)
    assert (config.name, config.backend, config.max_batch_size) == ("digits", "onnxruntime", 0)
    assert [(spec.name, list(spec.dims)) for spec in config.output] == [("logits", [1, 10]), ("propagated", [1, 36])]
    assert (config.output[0].label_filename, config.output[1].label_filename) == ("labels.txt", "")
    assert (folder / "labels.txt").read_text("utf-8").split() == [str(digit) for digit in range(10)]
    assert [(group.count, group.kind) for group in config.instance_group] == [(2, 2)]
    assert not config.HasField("dynamic_batching") and not config.HasField("optimization")
    assert {path.name for path in (tmp_path / "repo").iterdir()} == {"digits"}, "nothing else is left"

    pixels = np.stack([model.preprocess(ONE_OF_EACH[7])])
    (asked,) = request_for(config, {"images": pixels})
    assert asked.shape() == [1, 3, 32, 32] and asked.datatype() == "FP32"
    assert InferRequestedOutput("logits", class_count=3).name() == config.output[0].name
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(["logits"], {"images": pixels})[0], model.run(pixels))


def test_openvino_reads_its_own_form(digits: Path, model: Model, tmp_path: Path) -> None:
    (folder,) = write_repository([digits], tmp_path, TritonOptions(backend="openvino", name="a b/../c"))
    config = config_of(folder)
    assert (folder.name, config.name, config.backend) == ("a_b_.._c", "a_b_.._c", "openvino")
    compiled = openvino.Core().compile_model(
        str(folder / "1" / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    pixels = np.stack([model.preprocess(ONE_OF_EACH[7])])
    assert compiled.output("propagated").shape == [1, 36]
    np.testing.assert_allclose(compiled({"images": pixels})["logits"], model.run(pixels), atol=1e-4)


def test_openvino_is_needed_for_its_form(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendMissingError, match=r"gtp-export\[openvino\]"):
        write_repository([digits], tmp_path / "repo", TritonOptions(backend="openvino"))
    assert list((tmp_path / "repo").iterdir()) == []


def test_an_engine_records_its_one_cuda_graph(engine: Path, tmp_path: Path) -> None:
    (folder,) = write_repository([engine], tmp_path / "repo")
    config = config_of(folder)
    assert (folder / "1" / "model.plan").read_bytes() == b"a plan"
    assert config.backend == "tensorrt" and config.optimization.cuda.graphs
    (graph,) = config.optimization.cuda.graph_spec
    assert (graph.batch_size, list(graph.input["images"].dim)) == (0, [1, 3, 32, 32])
    (folder,) = write_repository([engine], tmp_path / "repo", TritonOptions(name="plain", cuda_graphs=False))
    assert not config_of(folder).HasField("optimization")


def test_weights_in_a_file_of_their_own_come_along(digits_copy: Path, tmp_path: Path) -> None:
    path = digits_copy / "model.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx.data", size_threshold=1024)
    manifest = read_manifest(digits_copy)
    weights = digits_copy / "model.onnx.data"
    data = FileEntry("data", file_sha256(weights), weights.stat().st_size)
    graph = {"sha256": file_sha256(path), "size": path.stat().st_size, "external_data": weights.name}
    entry = replace(manifest.entry("model.onnx"), **graph)
    files = manifest.files | {"model.onnx": entry, "model.onnx.data": data}
    write_manifest(replace(manifest, files=files), digits_copy)
    (folder,) = write_repository([digits_copy], tmp_path / "repo")
    assert {file.name for file in (folder / "1").iterdir()} == {"model.onnx", "model.onnx.data"}
    onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tiny model for 4 and for 1 images."""
    place = tmp_path_factory.mktemp("several")
    return [
        export(TINY, place / str(batch), weights="random", check=False, options=options).directory
        for batch in (4, 1)
        for options in [ExportOptions(batch=batch, simplify=False, dense=False)]
    ]


@pytest.mark.filterwarnings("default::gtp_runtime.errors.RandomWeightsWarning")
def test_several_batches_are_batched_dynamically(
    several: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = write_repository(several, tmp_path, TritonOptions(max_delay_us=500))
    assert [folder.name for folder in folders] == ["tiny_b1", "tiny_b4", "tiny"]
    assert [config_of(folder).max_batch_size for folder in folders] == [0, 0, 4]
    front = config_of(folders[-1])
    assert list(front.dynamic_batching.preferred_batch_size) == [1, 4]
    assert front.dynamic_batching.max_queue_delay_microseconds == 500
    assert (front.backend, [list(spec.dims) for spec in front.input]) == ("python", [[3, 16, 16]])
    models = {folder.name: gtp_runtime.load(path) for folder, path in zip(folders[:2], reversed(several), strict=True)}
    run = front_model(folders[-1], front, models, monkeypatch)
    images = np.random.default_rng(0).normal(size=(9, 3, 16, 16)).astype(np.float32)
    request_for(front, {"images": images[:3]})
    answers = run([images[:3], images[3:4], images[4:]])
    assert [len(answer["logits"]) for answer in answers] == [3, 1, 5]
    found = np.concatenate([answer["logits"] for answer in answers])
    np.testing.assert_allclose(found, models["tiny_b4"].run_all(images)["logits"], atol=1e-5)
    with pytest.raises(RuntimeError, match="no such model"):
        front_model(folders[-1], front, {}, monkeypatch)([images[:1]])


def front_model(folder: Path, config: Any, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load the front model's code as Triton's Python backend does, over a stand-in for that; returns a function from
    arrays, one a request, to answers.
    """
    backend = ModuleType("triton_python_backend_utils")
    vars(backend).update(stand_in(models))
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    code: dict[str, Any] = {"__name__": "model"}
    exec(compile((folder / "1" / "model.py").read_text("utf-8"), "model.py", "exec"), code)
    model = code["TritonPythonModel"]()
    model.initialize({"model_config": json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True))})

    def run(requests: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
        responses = model.execute([{"images": array} for array in requests])
        for response in responses:
            if response.has_error():
                raise RuntimeError(response.error().message())
        return [response.arrays for response in responses]

    return run


def stand_in(models: dict[str, Model]) -> dict[str, Any]:
    """What ``batching.py`` uses of Triton's Python backend."""

    class Tensor:
        def __init__(self, name: str, array: np.ndarray) -> None:
            self.name, self.array = name, array

        def as_numpy(self) -> np.ndarray:
            return self.array

    class TritonError:
        def __init__(self, text: str) -> None:
            self.text = text

        def message(self) -> str:
            return self.text

    class InferenceResponse:
        def __init__(self, tensors: "list[Tensor] | None" = None, error: "TritonError | None" = None) -> None:
            self.arrays, self._error = {tensor.name: tensor.array for tensor in tensors or []}, error

        def has_error(self) -> bool:
            return self._error is not None

        def error(self) -> "TritonError | None":
            return self._error

    class InferenceRequest:
        def __init__(self, model_name: str, requested_output_names: list[str], inputs: list[Tensor]) -> None:
            self.model, self.names, self.inputs = model_name, requested_output_names, inputs

        def exec(self) -> InferenceResponse:
            if self.model not in models:
                return InferenceResponse(error=TritonError("no such model"))
            outputs = models[self.model].outputs(self.inputs[0].array)
            return InferenceResponse([Tensor(name, outputs[name]) for name in self.names])

    return {
        "Tensor": Tensor,
        "TritonError": TritonError,
        "InferenceResponse": InferenceResponse,
        "InferenceRequest": InferenceRequest,
        "get_input_tensor_by_name": lambda request, name: Tensor(name, request[name]),
        "get_output_tensor_by_name": lambda response, name: Tensor(name, response.arrays[name]),
    }


def test_what_is_not_one_model_is_refused(several: list[Path], digits: Path, tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="weights"):
        write_repository([several[0], digits], tmp_path / "repo")
    other = Path(shutil.copytree(several[1], tmp_path / "other"))
    write_manifest(replace(read_manifest(other), settings={}), other)
    with pytest.raises(LimitError, match="settings"):
        write_repository([several[0], other], tmp_path / "repo")
    with pytest.raises(LimitError, match=r"\(4, 4\)"):
        write_repository([several[0]] * 2, tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


def test_what_triton_does_not_run_is_refused(digits: Path, engine: Path, tmp_path: Path) -> None:
    refused = [
        (digits, {"backend": "tensorrt"}, "'tensorrt' does not run model.onnx: choose onnxruntime or openvino"),
        (engine, {"backend": "onnxruntime"}, "does not run model.engine: choose tensorrt"),
        (engine, {"kind": "cpu"}, "an engine runs on a GPU"),
        (digits, {"cuda_graphs": True}, "CUDA graphs of engines alone"),
        (digits, {"max_delay_us": 5}, "a delay is for requests that are batched"),
        (digits, {"kind": "tpu"}, "kind='tpu' is unknown: choose one of auto, gpu, cpu"),
        (digits, {"instances": 0}, "instances=0: give a whole number of at least 1"),
    ]
    for path, given, words in refused:
        with pytest.raises(LimitError, match=words.replace("(", r"\(")):
            write_repository([path], tmp_path / "repo", TritonOptions(**given))
    manifest = read_manifest(engine.parent)
    info = replace(manifest.entry("model.engine").engine, flavor="rtx")  # type: ignore[type-var]
    entry = replace(manifest.entry("model.engine"), engine=info)
    write_manifest(replace(manifest, files=manifest.files | {"model.engine": entry}), engine.parent)
    with pytest.raises(LimitError, match="TensorRT-RTX"):
        write_repository([engine], tmp_path / "repo")
    engine.write_bytes(b"other")
    with pytest.raises(ManifestError, match="sha256 differs"):
        write_repository([engine], tmp_path / "repo")


def test_what_is_there_stays(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    with pytest.raises(OutputError, match=r"digits .*--name"):
        write_repository([digits], tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        write_repository([digits], tmp_path / "file")


def test_text_format_escapes_what_it_is_given() -> None:
    text = pbtxt(
        {"name": 'a "b"\n\\ü', "parameters": [{"key": "k", "value": {"string_value": "{}"}}], "max_batch_size": 3}
    )
    found = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (found.name, found.parameters["k"].string_value, found.max_batch_size) == ('a "b"\n\\ü', "{}", 3)
    assert pbtxt({"kind": Word("KIND_CPU"), "dims": [1, 2], "on": True}) == "kind: KIND_CPU\ndims: [1, 2]\non: true\n"


def test_the_command(command: Command, digits: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    ran = command("triton", digits, "-o", repository, "--instances", "2")
    assert ran.code == 0
    assert ran.out.splitlines()[0] == f"wrote {repository}: digits"
    assert ran.last == f"next: tritonserver --model-repository {repository}"
    ran = command("triton", digits, "-o", repository, "--name", "other", "--json")
    assert json.loads(ran.out) == {"repository": str(repository), "models": ["other"]}
    ran = command("triton", digits, "-o", repository)
    assert ran.code == 1 and "is there already" in ran.error
    ran = command("triton", digits, "-o", repository, "--name", "x", "--cuda-graphs")
    assert ran.code == 2


@pytest.fixture
def ranged(digits_copy: Path) -> Path:
    """An export in name: its graphs are said to take 1 to 8 images."""
    manifest = read_manifest(digits_copy)
    files = {name: taking(entry, BatchRange(1, 8)) for name, entry in manifest.files.items()}
    write_manifest(replace(manifest, files=files), digits_copy)
    return digits_copy


def taking(entry: FileEntry, batch: BatchRange) -> FileEntry:
    if not entry.inputs:
        return entry
    inputs, outputs = (
        [replace(spec, shape=[batch.max, *spec.shape[1:]]) for spec in specs] for specs in (entry.inputs, entry.outputs)
    )
    return replace(entry, inputs=inputs, outputs=outputs, batch=batch)


def test_a_range_of_batches_is_batched_by_triton(ranged: Path, tmp_path: Path) -> None:
    (folder,) = write_repository([ranged], tmp_path / "repo", TritonOptions(max_delay_us=200))
    config = config_of(folder)
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 8)
    assert [list(spec.dims) for spec in (*config.input, *config.output)] == [[3, 32, 32], [10], [36]]
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 200
    request_for(config, {"images": np.zeros((5, 3, 32, 32), np.float32)})


def test_an_engine_for_a_range_records_a_few_graphs(engine: Path, tmp_path: Path) -> None:
    manifest = read_manifest(engine.parent)
    entry = taking(manifest.entry(engine.name), BatchRange(1, 8))
    write_manifest(replace(manifest, files=manifest.files | {engine.name: entry}), engine.parent)
    config = config_of(write_repository([engine], tmp_path / "repo")[0])
    graphs = config.optimization.cuda.graph_spec
    assert [(graph.batch_size, list(graph.input["images"].dim)) for graph in graphs] == [
        (size, [3, 32, 32]) for size in (8, 4, 1)
    ]


def test_ranges_that_triton_does_not_take(ranged: Path, digits: Path, tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="fixed shapes"):
        write_repository([ranged], tmp_path / "repo", TritonOptions(backend="openvino"))
    with pytest.raises(LimitError, match="alone"):
        write_repository([digits, ranged], tmp_path / "repo")
    manifest = read_manifest(ranged)
    files = {name: taking(entry, BatchRange(2, 8)) for name, entry in manifest.files.items()}
    write_manifest(replace(manifest, files=files), ranged)
    with pytest.raises(LimitError, match="one image"):
        write_repository([ranged], tmp_path / "repo")
