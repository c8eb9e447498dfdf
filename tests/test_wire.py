"""Files of graphs as we write them: protobuf reads the same graph from them."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx_graphs import tiny_graph

from gtp_exporters.graph import files as graphs
from gtp_exporters.graph.files import _varint, read, save, serialized

TYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.int8, np.uint8, np.int64, np.bool_, ml_dtypes.int4]


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "LARGE", 16)


def graph_with(*tensors: ir.TensorProtocol) -> ir.Model:
    """Return a graph that hands its weights on as outputs."""
    weights = [ir.Value(name=tensor.name, const_value=tensor) for tensor in tensors]
    nodes = [ir.node("Identity", [value], outputs=[ir.Value(name=f"out_{value.name}")]) for value in weights]
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph([], outputs, nodes=nodes, initializers=weights, opset_imports={"": 21}, name="weights")
    return ir.Model(graph, ir_version=10, producer_name="test", metadata_props={"key": "value"})


def values_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: np.dtype(kind).name)
def test_weights_of_every_type(kind: type, tmp_path: Path) -> None:
    """Large and small ones, of numpy; as bytes and as a file."""
    large, small = (np.arange(size).reshape(2, -1).astype(kind) for size in (300, 4))
    model = graph_with(ir.tensor(large, name="large"), ir.tensor(small, name="small"))
    save(model, tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == serialized(model)
    proto = onnx.load(tmp_path / "a.onnx")
    found = values_of(proto)
    for name, expected in (("large", large), ("small", small)):
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)
    assert (proto.producer_name, proto.metadata_props[0].value, proto.graph.name) == ("test", "value", "weights")


def test_weights_of_torch_and_of_a_file(tmp_path: Path) -> None:
    weight = torch.arange(600.0).reshape(20, 30).T  # not contiguous
    (tmp_path / "b.data").write_bytes(np.arange(100, dtype=np.float32).tobytes())
    beside = ir.ExternalTensor("b.data", 8, 40, ir.DataType.FLOAT, shape=ir.Shape([10]), name="file", base_dir=tmp_path)
    proto = onnx.load_from_string(serialized(graph_with(ir.tensor(weight, name="torch"), beside)))
    found = values_of(proto)
    np.testing.assert_array_equal(found["torch"], weight.numpy())
    np.testing.assert_array_equal(found["file"], np.arange(2, 12, dtype=np.float32))
    assert not any(tensor.external_data for tensor in proto.graph.initializer)


def test_a_whole_graph_is_the_same_message(tmp_path: Path) -> None:
    """It is what protobuf itself writes, but the order of weights differs and their shapes are not repeated."""
    model = tiny_graph()
    proto, expected = onnx.load_from_string(serialized(model)), ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    found, known = values_of(proto), values_of(expected)
    assert found.keys() == known.keys()
    assert all(np.array_equal(found[name], known[name]) for name in known)
    for message in (proto, expected):
        others = [info for info in message.graph.value_info if info.name not in known]
        message.graph.ClearField("initializer")
        message.graph.ClearField("value_info")
        message.graph.value_info.extend(others)
    assert proto == expected
    save(model, tmp_path / "c.onnx")
    assert serialized(read(tmp_path / "c.onnx")) == serialized(model)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**14 - 1, 2**14, 2**31 - 1])
def test_varint(number: int) -> None:
    """Field 1 of TensorProto, ``dims``, is a list of varints."""
    content = b"".join([b"\x0a", _varint(len(_varint(number))), _varint(number)])
    assert list(onnx.TensorProto.FromString(content).dims) == [number]
