"""Writes new nodes into a graph, each before the node that they replace."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

FLOAT = ir.DataType.FLOAT
HUGE = 1e30  # times 1e30 again, the smallest difference of two float32 numbers, 1.4e-45, is above 1


def shape_of(value: ir.Value | None) -> list[int]:
    """Return the static shape of a value."""
    assert value is not None and value.shape is not None
    return [int(size) for size in value.shape.numpy()]


class Emitter:
    """Writes nodes; constants of the same content are written once.

    Args:
        graph: that they are written into.
        arithmetic: write no comparisons.
        name: in front of the names of nodes and constants.

    Attributes:
        before: the node in front of which new ones are put.
    """

    def __init__(self, graph: ir.Graph, arithmetic: bool = False, name: str = "ranks") -> None:
        self.graph, self.arithmetic, self.name = graph, arithmetic, name
        self.before: ir.Node = next(iter(graph))
        self._constants: dict[tuple[Any, ...], ir.Value] = {}
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._shapes: dict[ir.Value, list[int]] = {}  # of what was reshaped; its type is not known before inference
        self._count = 0

    def __call__(self, kind: str, *inputs: ir.Value | None, name: str | None = None, **attributes: Any) -> ir.Value:
        """Write a node with one output, and return it."""
        return self._node(kind, inputs, attributes, 1, name).outputs[0]

    def _node(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, Any],
        outputs: int,
        name: str | None = None,
    ) -> ir.Node:
        self._count += 1
        label = f"{name or self.name}.{self._count}.{kind}"
        made = [ir.Value(name=f"{label}.{index}") for index in range(outputs)]
        node = ir.node(kind, inputs, attributes, outputs=made, name=label)
        self.graph.insert_before(self.before, node)
        return node

    def many(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> list[ir.Value]:
        """Write a node again for other inputs, and return its outputs."""
        attributes = dict(node.attributes)
        return list(self._node(node.op_type, inputs, attributes, len(node.outputs)).outputs)

    def split(self, value: ir.Value, like: ir.Node, axis: int) -> list[ir.Value]:
        """Split a value along an axis into parts as long as another node's."""
        inputs = [value, *like.inputs[1:]]
        attributes = {name: held for name, held in like.attributes.items() if name != "axis"} | {"axis": axis}
        return list(self._node("Split", inputs, attributes, len(like.outputs)).outputs)

    def constant(self, values: np.ndarray) -> ir.Value:
        """Return a weight of the graph."""
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._constants:
            name = f"{self.name}.constant.{len(self._constants)}"
            tensor = ir.tensor(values, name=name)
            kind = ir.TensorType(tensor.dtype)
            made = ir.Value(name=name, shape=ir.Shape(values.shape), type=kind, const_value=tensor)
            self.graph.register_initializer(made)
            self._constants[key] = made
        return self._constants[key]

    def number(self, value: float) -> ir.Value:
        """Return a float32 number."""
        return self.constant(np.array(value, np.float32))

    def places(self, size: int, column: bool = False) -> ir.Value:
        """Return 0, 1, … as float32, (size,) or (size, 1)."""
        places = np.arange(size, dtype=np.float32)
        return self.constant(places[:, None] if column else places)

    def named(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """Give a value the name, shape and type of the one that it replaces, and return it."""
        name, like.name = like.name, None
        value.name, value.shape, value.type = name, like.shape, like.type
        return value

    def typed(self, value: ir.Value, kind: ir.DataType | None) -> ir.Value:
        """Return float32 values in another type."""
        if kind in (None, FLOAT):
            return value
        assert kind is not None
        if (value, kind) not in self._casts:
            self._casts[value, kind] = self("Cast", value, to=kind)
        return self._casts[value, kind]

    def reshape(self, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        """Return a value in another shape."""
        known = self._shapes.get(value) or (None if value.shape is None else shape_of(value))
        if known == list(shape):
            return value
        made = self("Reshape", value, self.constant(np.array(shape, np.int64)))
        self._shapes[made] = list(shape)
        return made

    def sum_last(self, value: ir.Value, name: str | None = None) -> ir.Value:
        """Return the sums of the last axis, which is gone then."""
        return self("ReduceSum", value, self.constant(np.array([-1], np.int64)), name=name, keepdims=0)

    def extreme_last(self, value: ir.Value, largest: bool) -> ir.Value:
        """Return the largest or smallest entry of the last axis, which then has length 1."""
        return self("ReduceMax" if largest else "ReduceMin", value, self.constant(np.array([-1], np.int64)), keepdims=1)

    def flag(self, comparison: str, left: ir.Value, right: ir.Value) -> ir.Value:
        """Return 1 where a comparison holds, else 0, float32."""
        return self("Cast", self(comparison, left, right), to=FLOAT)

    def above(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Return 1 where left > right, else 0."""
        if not self.arithmetic:
            return self.flag("Greater", left, right)
        apart = self("Sub", left, right)
        for _ in range(2):
            apart = self("Clip", self("Mul", apart, self.number(HUGE)), self.number(0), self.number(1))
        return apart

    def equal(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Return 1 where two floats are equal, else 0."""
        if not self.arithmetic:
            return self.flag("Equal", left, right)
        either = self("Add", self.above(left, right), self.above(right, left))
        return self("Sub", self.number(1), either)

    def same_number(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Return 1 where two whole numbers are equal, else 0."""
        if not self.arithmetic:
            return self.flag("Equal", left, right)
        apart = self("Sub", left, right)
        return self("Sub", self.number(1), self("Clip", self("Mul", apart, apart), self.number(0), self.number(1)))
