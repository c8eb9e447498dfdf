"""The LiteRT backend: runs a file, from any thread, and refuses what is no file of its manifest."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gtp_runtime.backends import BACKENDS
from gtp_runtime.backends.spec import Backend
from gtp_runtime.errors import GTPRuntimeError, InputError, ManifestError
from gtp_runtime.manifest import FileEntry, TensorSpec

flatbuffers = pytest.importorskip("flatbuffers")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="the extra litert is not installed")
ENTRY = FileEntry(
    "model",
    "",
    0,
    inputs=[TensorSpec("images", [1, 3, 2, 2], "float32")],
    outputs=[TensorSpec("logits", [1, 12], "float32")],
)
LITERT = BACKENDS["litert"]


def tensor(name: str, shape: list[int], buffer: int, kind: int) -> object:
    made = schema.TensorT()
    made.name, made.shape, made.buffer, made.type = name, shape, buffer, kind
    return made


def flattening() -> bytes:
    """Return a .tflite file that flattens (1, 3, 2, 2) images to (1, 12) logits."""
    new_shape, empty = schema.BufferT(), schema.BufferT()
    new_shape.data = list(np.array([1, 12], np.int32).tobytes())
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    node, graph, model = schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    node.opcodeIndex, node.inputs, node.outputs = 0, [0, 1], [2]
    graph.tensors = [
        tensor("images", [1, 3, 2, 2], 0, schema.TensorType.FLOAT32),
        tensor("shape", [2], 1, schema.TensorType.INT32),
        tensor("logits", [1, 12], 0, schema.TensorType.FLOAT32),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [node]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [empty, new_shape]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    path.write_bytes(flattening())
    return path


@pytest.fixture
def backend(file: Path) -> Iterator[Backend]:
    opened = LITERT.open(file, ENTRY, LITERT.options(threads=1))
    yield opened
    opened.close()


def test_it_answers_by_name(backend: Backend) -> None:
    images = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    answers = backend.run({"images": images})
    np.testing.assert_array_equal(answers["logits"], images.reshape(1, 12))
    assert backend.info["threads"] == 1 and backend.info["version"]


def test_threads_share_it(backend: Backend) -> None:
    inputs = [np.full((1, 3, 2, 2), value, np.float32) for value in range(40)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda images: backend.run({"images": images})["logits"], inputs))
    for images, logits in zip(inputs, answers, strict=True):
        np.testing.assert_array_equal(logits, images.reshape(1, 12))


def test_a_closed_model_says_so(file: Path) -> None:
    opened = LITERT.open(file, ENTRY, LITERT.options())
    opened.close()
    with pytest.raises(GTPRuntimeError, match="closed"):
        opened.run({"images": np.zeros((1, 3, 2, 2), np.float32)})


def test_a_file_of_another_manifest_is_refused(file: Path) -> None:
    other = FileEntry("model", "", 0, inputs=ENTRY.inputs, outputs=[TensorSpec("logits", [1, 10], "float32")])
    with pytest.raises(ManifestError, match="logits"):
        LITERT.open(file, other, LITERT.options())


def test_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"no model")
    with pytest.raises(ManifestError, match=r"model\.tflite"):
        LITERT.open(path, ENTRY, LITERT.options())


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(InputError, match="threads"):
        LITERT.options(threads=4096)
