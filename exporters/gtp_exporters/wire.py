"""Writes an ONNX file without a copy of its weights: they go from where they are into the file.

An ONNX file is a protobuf message, and its weights are entries of one repeated field. So protobuf serializes the graph
without its large weights, and these are appended to the graph's message: a tag, a length, the tensor.
"""

from collections.abc import Mapping
from typing import BinaryIO

import onnx
import onnx_ir as ir


def write(proto: onnx.ModelProto, weights: Mapping[str, ir.TensorProtocol], file: BinaryIO) -> None:
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
