"""Writes a lower precision into a graph: fp16 or bf16, for runtimes that run what the graph says.

TensorRT builds strongly typed networks, so precision must stand in the graph. The converters at hand (ONNX Runtime's,
onnxconverter-common's) know no bf16 and round every value between two nodes that stay fp32, which would rank tokens by
rounded scores; hence our own. It needs onnx alone, so it runs on the device as well.

What stays fp32 is what decides which tokens leave: the token graph, the token scales, and in layers that reduce the
softmax and the statistics of its map. Inputs and outputs stay float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gtp_exporters.errors import LimitError
from gtp_exporters.limits import PRECISIONS
from gtp_exporters.static_check import infer_shapes

FLOAT = TensorProto.FLOAT
LOW_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def to_precision(proto: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Return a copy of a float32 graph in another precision, with inferred shapes.

    Args:
        proto: static, with inferred shapes, weights as initializers.
        precision: "fp32" (a copy as it is), "fp16" or "bf16".

    Raises:
        LimitError: an unknown precision, a graph that is not float32, or weights that fp16 cannot hold.
    """
    if precision not in PRECISIONS:
        raise LimitError(f"no precision is called {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision_of(proto) != "fp32":
        raise LimitError(
            f"the graph is {precision_of(proto)} already, not to be made {precision}: take the fp32 export"
        )
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    if precision == "fp32":
        return copy
    opset = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    _Conversion(copy.graph, LOW_TYPES[precision], opset).run()
    del copy.graph.value_info[:]
    return infer_shapes(copy)


def precision_of(proto: onnx.ModelProto) -> str:
    """Return the precision that a graph is written in: that of its weights."""
    kinds = {tensor.data_type for tensor in proto.graph.initializer}
    return next((name for name, kind in LOW_TYPES.items() if kind in kinds), "fp32")


def kept_nodes(graph: onnx.GraphProto) -> set[int]:
    """Return the indices of the nodes that decide which tokens leave: what TopK depends on.

    The way back from every TopK ends at products with weights and at the attention logits.
    """
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output}
    weights = {tensor.name for tensor in graph.initializer}
    logits = set(_attention_logits(graph, producer))
    kept: set[int] = set()
    waiting = [index for index, node in enumerate(graph.node) if node.op_type == "TopK"]
    while waiting:
        index = waiting.pop()
        node = graph.node[index]
        weighted = node.op_type in ("Conv", "Gemm", "MatMul") and any(name in weights for name in node.input[:2])
        if index in kept or weighted or index in logits:
            continue
        kept.add(index)
        waiting += [producer[name] for name in node.input if name in producer]
    return kept


def _attention_logits(graph: onnx.GraphProto, producer: dict[str, int]) -> Iterator[int]:
    for node in graph.node:
        if node.op_type != "Softmax":
            continue
        source = graph.node[producer[node.input[0]]]
        inputs = source.input if source.op_type in ("Add", "Mul") else node.input
        yield from (producer[name] for name in inputs if name in producer and _is_product(graph, producer[name]))


def takes(op_type: str, opset: int, kind: int) -> bool:
    """Whether ONNX lets an operator work on a float type (Conv takes bf16 from opset 22 on)."""
    wanted = f"tensor({TensorProto.DataType.Name(kind).lower()})"
    return wanted in onnx.defs.get_schema(op_type, opset).inputs[0].types


def _is_product(graph: onnx.GraphProto, index: int) -> bool:
    return graph.node[index].op_type == "MatMul"


@dataclass
class _Conversion:
    """One pass over the nodes in order; a value is cast once for each type in which it is used."""

    graph: onnx.GraphProto
    low: int
    opset: int
    kinds: dict[str, int] = field(default_factory=dict)  # of the float values that exist so far
    weights: dict[str, onnx.TensorProto] = field(default_factory=dict)  # float32 initializers
    casts: dict[tuple[str, int], str] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    made: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def run(self) -> None:
        graph = self.graph
        kept = kept_nodes(graph)
        floats = {value.name for value in (*graph.value_info, *graph.output) if _is_float(value)}
        self.weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == FLOAT}
        self.kinds = {value.name: FLOAT for value in graph.input if _is_float(value)}
        for index, node in enumerate(graph.node):
            low = index not in kept and takes(node.op_type, self.opset, self.low)
            self._convert(node, self.low if low else FLOAT, floats)
        self._float_outputs()
        others = [tensor for tensor in graph.initializer if tensor.data_type != FLOAT]
        del graph.initializer[:], graph.node[:]
        graph.initializer.extend([*others, *self.made.values()])
        graph.node.extend(self.nodes)

    def _convert(self, node: onnx.NodeProto, kind: int, floats: set[str]) -> None:
        converted = onnx.NodeProto()
        converted.CopyFrom(node)
        for position, name in enumerate(node.input):
            if name in self.weights:
                converted.input[position] = self._weight(name, kind)
            elif self.kinds.get(name, kind) != kind:
                converted.input[position] = self._cast(name, kind)
        for attribute in converted.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = kind
        self.nodes.append(converted)
        self.kinds.update({name: kind for name in node.output if name in floats})

    def _weight(self, name: str, kind: int) -> str:
        called = name if kind == FLOAT else f"{name}.low"
        if called not in self.made:
            self.made[called] = _cast_tensor(self.weights[name], called, kind)
        return called

    def _cast(self, name: str, kind: int) -> str:
        if (name, kind) not in self.casts:
            called = f"{name}.{'float' if kind == FLOAT else 'low'}"
            self.nodes.append(helper.make_node("Cast", [name], [called], name=f"cast_{called}", to=kind))
            self.casts[name, kind] = called
        return self.casts[name, kind]

    def _float_outputs(self) -> None:
        """Outputs keep name and type: what made them gets another name, and a cast follows."""
        for output in self.graph.output:
            if self.kinds.get(output.name, FLOAT) == FLOAT:
                continue
            inner = f"{output.name}.inner"
            for node in self.nodes:
                for names in (node.input, node.output):
                    for position, name in enumerate(names):
                        if name == output.name:
                            names[position] = inner
            self.nodes.append(helper.make_node("Cast", [inner], [output.name], name=f"cast_{inner}", to=FLOAT))


def _cast_tensor(tensor: onnx.TensorProto, name: str, kind: int) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    if kind == TensorProto.FLOAT16 and np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise LimitError(f"{tensor.name} holds {np.abs(values).max():.3g}, more than fp16 can: use bf16")
    return numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(kind)), name)


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type == FLOAT
