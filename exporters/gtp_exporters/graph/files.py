"""Graphs as ``onnx_ir`` models: their weights are PyTorch's own or mapped from a file, not copied into protobuf.

What takes a protobuf (ONNX's checker, shape inference, the simplifier) gets the skeleton of a graph: its large weights
are inputs there. So a graph may be larger than protobuf's 2 GiB, and small ones take less time and memory. A file is
written likewise: an ONNX file is a protobuf message, and its weights are entries of one repeated field, so protobuf
serializes the skeleton, and the weights are appended to it from where they are: a tag, a length, the tensor.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from gtp_exporters.errors import StaticCheckError
from gtp_runtime.messages import one_line
from gtp_runtime.onnx_scan import ScanError, scan

LARGE = 1 << 20  # bytes; a weight of this size or more is an input of the skeleton
EXTERNAL_ABOVE = 1 << 30  # bytes; more weights than this go into a file beside the graph (protobuf ends at 2 GiB)
INLINE = 1024  # bytes; weights up to this size stay in the graph even then
DATA_SUFFIX = ".data"

Weights = dict[str, ir.TensorProtocol]


def skeleton(model: ir.Model) -> tuple[onnx.ModelProto, Weights]:
    """Return a copy of a graph whose large weights are inputs, and those weights by name."""
    copy = model.clone()
    weights: Weights = {}
    for value, tensor in _take_large(copy):
        weights[str(value.name)] = tensor
        value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
        copy.graph.inputs.append(value)
    return ir.to_proto(copy), weights


def _take_large(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Remove the large weights of a graph, in place; yield each value, then without its tensor, and the tensor."""
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= LARGE:
            del model.graph.initializers[name]
            value.const_value = None
            yield value, tensor


def restore(proto: onnx.ModelProto, weights: Weights) -> ir.Model:
    """Return a graph from its skeleton, and the weights that it still uses."""
    model = ir.from_proto(proto)
    inputs = {value.name: value for value in model.graph.inputs}
    for name, tensor in weights.items():
        value = inputs[name]
        model.graph.inputs.remove(value)
        value.const_value = tensor
        model.graph.register_initializer(value)
    return without_unused(model)


def without_unused(model: ir.Model) -> ir.Model:
    """Remove nodes and weights that nothing uses, in place, and return the graph."""
    return RemoveUnusedNodesPass()(model).model


def weight_bytes(model: ir.Model) -> int:
    """Return the size of a graph's weights in bytes."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def save(model: ir.Model, path: Path) -> str | None:
    """Write a graph, and above ``EXTERNAL_ABOVE`` its weights into one file beside it.

    Returns:
        The name of the file of weights, ``path``'s with ".data" appended; None where the graph holds them itself.
    """
    if weight_bytes(model) <= EXTERNAL_ABOVE:
        with path.open("wb") as file:
            _write(model, file)
        return None
    name = path.name + DATA_SUFFIX
    ir.save(model, path, external_data=name, size_threshold_bytes=INLINE)
    return name


def serialized(model: ir.Model) -> bytes:
    """Return a graph that holds all its weights as protobuf; the graph itself stays as it is."""
    file = BytesIO()
    _write(model, file)
    return file.getvalue()


def _write(model: ir.Model, file: BinaryIO) -> None:
    copy = model.clone()
    weights = {str(value.name): tensor for value, tensor in _take_large(copy)}
    _load_small(copy)
    write_message(ir.to_proto(copy), weights, file)


def write_message(proto: onnx.ModelProto, weights: Mapping[str, ir.TensorProtocol], file: BinaryIO) -> None:
    """Write a graph and its weights as one ONNX file of at most 2 GiB, protobuf's limit.

    Args:
        proto: the graph without these weights; its own field ``graph`` is empty afterwards.
        weights: by name.
        file: open for writing.
    """
    entries = [_Entry(name, tensor) for name, tensor in weights.items()]
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    file.write(proto.SerializeToString())
    file.write(_prefix(onnx.ModelProto.GRAPH_FIELD_NUMBER, len(graph) + sum(entry.size for entry in entries)))
    file.write(graph)
    for entry in entries:
        entry.write(file)


class _Entry:
    """A weight as an entry of the graph's initializers."""

    def __init__(self, name: str, tensor: ir.TensorProtocol) -> None:
        self.tensor = tensor
        head = onnx.TensorProto(name=name, dims=tensor.shape.numpy(), data_type=tensor.dtype.value).SerializeToString()
        head += _prefix(onnx.TensorProto.RAW_DATA_FIELD_NUMBER, tensor.nbytes)
        self.head = _prefix(onnx.GraphProto.INITIALIZER_FIELD_NUMBER, len(head) + tensor.nbytes) + head
        self.size = len(self.head) + tensor.nbytes

    def write(self, file: BinaryIO) -> None:
        file.write(self.head)
        file.flush()  # the tensor may write past Python's buffer
        self.tensor.tofile(file)  # type: ignore[attr-defined]  # every tensor of onnx_ir has it; the protocol does not name it


def _prefix(field: int, length: int) -> bytes:
    """Return the tag of a field whose content has a length, and that length."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(number: int) -> bytes:
    """Return a number in groups of 7 bits, the lowest first; the eighth bit says that more follow."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def _load_small(model: ir.Model) -> None:
    """Read small weights that are in a file beside a graph into memory, in place."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes < LARGE:
            value.const_value = ir.tensor(tensor.numpy(), tensor.dtype, name=value.name)


def read(path: Path, external_data: str | None = None) -> ir.Model:
    """Read a graph; large weights beside it are mapped, not read.

    Args:
        path: the .onnx file.
        external_data: the only file that its weights may be in, as the manifest names it.

    Raises:
        StaticCheckError: not an ONNX file, or it names another file.
    """
    try:
        scan(path, external_data)
        model = ir.load(path)
        _load_small(model)
    except ScanError as error:
        raise StaticCheckError(f"{path} cannot be used: {error}; export again") from error
    except Exception as error:  # protobuf's and onnx_ir's own errors share no base class
        raise StaticCheckError(f"{path} is not an ONNX graph ({one_line(error)}): export again") from error
    return model


@contextmanager
def on_disk(model: ir.Model) -> Iterator[Path]:
    """Yield a temporary file of a graph, its weights beside it where they are many."""
    with TemporaryDirectory(prefix="gtp-export-") as directory:
        path = Path(directory) / "model.onnx"
        save(model, path)
        yield path
