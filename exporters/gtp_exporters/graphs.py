"""Graphs as ``onnx_ir`` models: their weights are PyTorch's own or mapped from a file, not copied into protobuf.

What takes a protobuf (ONNX's checker, shape inference, the simplifier) gets the skeleton of a graph: its large weights
are inputs there. So a graph may be larger than protobuf's 2 GiB, and small ones take less time and memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from gtp_exporters.errors import StaticCheckError
from gtp_exporters.wire import write
from gtp_runtime.onnx_scan import ScanError, scan
from gtp_runtime.text import one_line

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
    write(ir.to_proto(copy), weights, file)


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
