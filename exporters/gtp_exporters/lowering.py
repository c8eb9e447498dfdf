"""Lowers a float32 graph to fp16 or bf16 by casts, for runtimes that compute in what the graph says.

TensorRT builds strongly typed networks, so the precision must be written into the graph. The converters at hand (ONNX
Runtime's, onnxconverter-common's) know no bf16, and they round every value between two nodes that stay fp32, which
would rank tokens by rounded scores. This one needs onnx and onnx_ir alone, so it runs on the device as well.

What decides which tokens leave stays fp32: the token graph, the token scales, and in layers that reduce tokens the
softmax and the statistics of its map. So do normalisation, the sizes of tokens, and what is added up between the layers
and merged by size: there values grow, and fp16 ends at 65,504. Inputs and outputs stay float32.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from gtp_exporters.errors import LimitError
from gtp_exporters.graphs import without_unused
from gtp_exporters.static_check import infer_shapes

FLOAT = ir.DataType.FLOAT
NORMALISING = ("LayerNormalization", "Log", "Pow", "ReduceMean")  # Log is of the sizes of tokens


def lower(model: ir.Model, low: ir.DataType) -> ir.Model:
    """Return a copy of a float32 graph in which all that may be is ``low``, with inferred shapes.

    Raises:
        LimitError: weights that ``low`` cannot hold.
    """
    copy = model.clone()
    _Lowering(copy.graph, low, copy.opset_imports[""]).run()
    return infer_shapes(without_unused(copy))


def deciding_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes that decide which tokens leave: what TopK depends on.

    The way back from every TopK ends at products with weights and at the attention logits.
    """
    logits = {product for node in graph for product in attention_logits(node)}
    return _way_back([node for node in graph if node.op_type == "TopK"], ends=logits)


def summing_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes that normalise, and the sums that they are of: the residual sums, and merging by size.

    The way back ends at products with weights and at those of attention.
    """
    maps = {node for node in graph if next(attention_logits(node), None) is not None}
    return _way_back([node for node in graph if node.op_type in NORMALISING], ends=maps)


def _way_back(starts: list[ir.Node], ends: Collection[ir.Node]) -> set[ir.Node]:
    """Return the nodes that some depend on, themselves included, up to products with weights and ``ends``."""
    found: set[ir.Node] = set()
    waiting = list(starts)
    while waiting:
        node = waiting.pop()
        if node in found or node in ends or _is_weighted(node):
            continue
        found.add(node)
        waiting += node.predecessors()
    return found


def _is_weighted(node: ir.Node) -> bool:
    weights = (value is not None and value.is_initializer() for value in node.inputs[:2])
    return node.op_type in ("Conv", "Gemm", "MatMul") and any(weights)


def attention_logits(node: ir.Node) -> Iterator[ir.Node]:
    """Yield the product that an attention map is the softmax of, with or without a scale or mask between them.

    Nodes that are no softmax of a product have none.
    """
    if node.op_type != "Softmax":
        return
    sources = list(node.predecessors())
    if sources and sources[0].op_type in ("Add", "Mul"):
        sources = list(sources[0].predecessors())
    yield from (source for source in sources if source.op_type == "MatMul")


def takes(op_type: str, opset: int, kind: ir.DataType) -> bool:
    """Whether ONNX lets an operator work on a float type (Conv takes bf16 from opset 22 on)."""
    return f"tensor({kind.name.lower()})" in onnx.defs.get_schema(op_type, opset).inputs[0].types


@dataclass
class _Lowering:
    """One pass over the nodes in order; a value is cast once for each type in which it is used."""

    graph: ir.Graph
    low: ir.DataType
    opset: int
    made: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)  # casts, and weights

    def run(self) -> None:
        kept = deciding_nodes(self.graph) | summing_nodes(self.graph)
        for node in list(self.graph):
            low = node not in kept and takes(node.op_type, self.opset, self.low)
            self._convert(node, self.low if low else FLOAT)
        for index, output in enumerate(self.graph.outputs):
            if output.dtype == self.low:
                self.graph.outputs[index] = self._float_output(output)

    def _convert(self, node: ir.Node, kind: ir.DataType) -> None:
        for position, value in enumerate(node.inputs):
            if value is not None and value.dtype in (FLOAT, self.low) and value.dtype != kind:
                node.replace_input_with(position, self._as(value, kind, node))
        if node.op_type == "Cast" and node.attributes["to"].as_int() == FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", kind)
        for value in node.outputs:
            if value.dtype == FLOAT:
                value.type = ir.TensorType(kind)  # a copy shares its types with the graph it was made from

    def _as(self, value: ir.Value, kind: ir.DataType, user: ir.Node) -> ir.Value:
        if (value, kind) not in self.made:
            weight = value.is_initializer()
            self.made[value, kind] = self._weight(value, kind) if weight else self._cast(value, kind, user)
        return self.made[value, kind]

    def _weight(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        assert value.const_value is not None
        name = f"{value.name}.low"
        tensor = _cast_tensor(value.const_value, name, kind)
        made = ir.Value(name=name, shape=value.shape, type=ir.TensorType(kind), const_value=tensor)
        self.graph.register_initializer(made)
        return made

    def _cast(self, value: ir.Value, kind: ir.DataType, user: ir.Node) -> ir.Value:
        name = f"{value.name}.{'float' if kind == FLOAT else 'low'}"
        made = ir.Value(name=name, shape=value.shape, type=ir.TensorType(kind))
        cast = ir.node("Cast", [value], {"to": kind}, outputs=[made], name=f"cast_{name}")
        self.graph.insert_before(user, cast)
        return made

    def _float_output(self, value: ir.Value) -> ir.Value:
        """Return a float32 value of the same name; the value itself gets another name."""
        made = ir.Value(name=value.name, shape=value.shape, type=ir.TensorType(FLOAT))
        value.name = f"{value.name}.inner"
        self.graph.append(ir.node("Cast", [value], {"to": FLOAT}, outputs=[made], name=f"cast_{value.name}"))
        return made


def _cast_tensor(tensor: ir.TensorProtocol, name: str, kind: ir.DataType) -> ir.TensorProtocol:
    values = tensor.numpy()
    largest = float(np.abs(values).max(initial=0)) if kind == ir.DataType.FLOAT16 else 0.0
    if largest > float(np.finfo(np.float16).max):
        raise LimitError(f"{name.removesuffix('.low')} holds {largest:.3g}, more than fp16 can: use bf16")
    return ir.tensor(values.astype(kind.numpy()), kind, name=name)
