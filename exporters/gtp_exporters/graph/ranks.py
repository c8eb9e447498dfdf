"""Writes a graph without TopK, Gather by computed ids, ArgMax and integers, for targets that lack them; same answers.

The rank of a token is the number of tokens before it: those with a higher score, and those of the same score with a
lower index, as TopK orders them. Comparing all pairs gives it. Rows then move by products with matrices of 0 and 1,
which are exact. Ids are float32 numbers on their way; only the trace outputs become int32, by one Cast each at the end.

``ranks`` compares with Greater and Equal. ``ranks-arithmetic`` has no comparison either: a > b is
``clip((a - b) * 1e30, 0, 1)``, scaled and clipped twice so that the smallest difference of two float32 numbers gives 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import onnx_ir as ir

from gtp_exporters.errors import LimitError
from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.emitter import FLOAT, Emitter, shape_of
from gtp_exporters.graph.files import without_unused
from gtp_exporters.graph.structure import RANK
from gtp_exporters.options import FORMS

LARGEST = 1 << 23  # entries of a matrix that compares all pairs or moves rows: 32 MiB
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
LOGIC = ("And", "Not", "Or", "Where", "Xor")
SORTING = ("ArgMax", "ArgMin", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "TopK")
MOVING = tuple("Concat Expand Gather Identity Pad Reshape Slice Split Squeeze Transpose Unsqueeze".split())
DATA = {"Pad": (0, 2)}  # inputs that are data, where it is more than the first; the others are axes and sizes
COUNTING = ("Add", "Max", "Min", "Mul", "Neg", "Sub")
INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)


def to_form(model: ir.Model, form: str) -> ir.Model:
    """Return a graph in a form, with inferred shapes.

    Args:
        model: with inferred shapes, in any float precision; it is not changed.
        form: a name of ``gtp_exporters.options.FORMS``; "sort" is a copy as it is.

    Raises:
        LimitError: what the form cannot say, or only at a great cost: names the node.
    """
    copy = model.clone()
    if form == FORMS[0]:
        return copy
    _Ranks(copy.graph, form, arithmetic=form == "ranks-arithmetic").write()
    lowered = infer_shapes(without_unused(copy))
    left = [f"{node.op_type} {node.name}" for node in lowered.graph if not fits(node, form)]
    if left:
        raise LimitError(f"this export cannot be written as {form}: it needs {left[0]}; use --form sort")
    return lowered


def fits(node: ir.Node, form: str) -> bool:
    """Whether a form has such a node."""
    if form == FORMS[0]:
        return True
    if node.op_type in SORTING or (node.op_type == "Gather" and _is_computed(node.inputs[1])):
        return False
    if form == "ranks-arithmetic" and node.op_type in (*COMPARISONS, *LOGIC):
        return False
    is_output = any(value.is_graph_output() for value in node.outputs)
    return is_output or not any(value.dtype in INTEGERS for value in node.outputs)


def _is_computed(value: ir.Value | None) -> bool:
    return value is not None and not value.is_initializer()


@dataclass
class Ids:
    """Integers that a graph computes.

    Attributes:
        emit: writes nodes.
        shape: of the integers.
        make_numbers: makes them as float32 of this shape.
        one_hot: 0 and 1 of this shape and one axis more, whose length is ``size``; None if it is not made yet.
        images: for rows of a flattened batch, the ids within each image, (B, k), and the number of rows of an image.
    """

    emit: Emitter
    shape: list[int]
    make_numbers: Callable[[], ir.Value]
    one_hot: ir.Value | None = None
    size: int = 0
    images: tuple["Ids", int] | None = None

    @cached_property
    def numbers(self) -> ir.Value:
        """The integers as float32."""
        return self.make_numbers()

    def matrix(self, size: int) -> ir.Value:
        """Return, for ids below ``size``, the matrix whose product picks their rows: (*shape, size)."""
        if self.one_hot is None or self.size != size:
            check_size([*self.shape, size])
            column = self.emit.reshape(self.numbers, [*self.shape, 1])
            self.one_hot, self.size = self.emit.same_number(column, self.emit.places(size)), size
        return self.one_hot


def check_size(shape: Sequence[int]) -> None:
    """Raise ``LimitError`` where a matrix is so large that sorting is the only sensible form."""
    if math.prod(shape) > LARGEST:
        raise LimitError(
            f"as ranks, this export needs a matrix of {' x '.join(map(str, shape))} entries: use --form sort, "
            "--batch 1, sparsity 1.0 or fewer tokens"
        )


class _Ranks:
    """Writes the nodes of a graph anew, one after another, where they compute integers."""

    def __init__(self, graph: ir.Graph, form: str, arithmetic: bool) -> None:
        self.graph, self.form, self.arithmetic = graph, form, arithmetic
        self.emit = Emitter(graph, arithmetic)
        self.ids: dict[ir.Value, Ids] = {}
        self.flags: dict[ir.Value, ir.Value] = {}  # truth values as 0 and 1
        self.writers: dict[str, Callable[[ir.Node], None]] = {
            "TopK": self._top_k,
            "ArgMax": self._best,
            "ArgMin": self._best,
            "Gather": self._gather,
            "Cast": self._cast,
            "Split": self._split,
            **dict.fromkeys(COMPARISONS, self._compared),
            **dict.fromkeys(LOGIC, self._logic),
        }

    def write(self) -> None:
        """Write all nodes."""
        for node in list(self.graph):
            if not self._concerns(node):
                continue
            self.emit.before = node
            if node.op_type in self.writers:
                self.writers[node.op_type](node)
            else:
                self._as_numbers(node)

    def _concerns(self, node: ir.Node) -> bool:
        if node.op_type in ("TopK", "ArgMax", "ArgMin"):
            return True
        if self.arithmetic and node.op_type in (*COMPARISONS, *LOGIC):
            return True
        return any(value in self.ids or value in self.flags for value in node.inputs if value is not None)

    def _refuse(self, node: ir.Node) -> LimitError:
        return LimitError(
            f"{self.form} has no form of {node.op_type} {node.name} on computed integers: use --form sort"
        )

    # what is read

    def _floats(self, value: ir.Value | None) -> ir.Value:
        """Return integers, truth values or floats as float32."""
        assert value is not None
        if value in self.ids:
            return self.ids[value].numbers
        if value in self.flags:
            return self.flags[value]
        if value.is_initializer() and value.dtype != FLOAT:
            assert value.const_value is not None
            return self.emit.constant(value.const_value.numpy().astype(np.float32))
        return value if value.dtype == FLOAT else self.emit("Cast", value, to=FLOAT)

    def _is_integer(self, value: ir.Value | None) -> bool:
        return value is not None and (value in self.ids or (value.is_initializer() and value.dtype in INTEGERS))

    # what is written

    def _put(self, value: ir.Value, made: ir.Value) -> None:
        """Put a float value in the place of another."""
        ir.convenience.replace_all_uses_with(value, self.emit.named(made, value), replace_graph_outputs=True)

    def _put_ids(self, value: ir.Value, made: Ids) -> None:
        """Remember integers; where they are an output of the graph, cast them to its type."""
        self.ids[value] = made
        if value.is_graph_output():
            assert value.dtype is not None
            self._put(value, self.emit("Cast", made.numbers, to=value.dtype))

    # nodes that sort

    def _top_k(self, node: ir.Node) -> None:
        values, order = node.outputs
        source = node.inputs[0]
        shape = shape_of(source)
        if attribute(node, "axis", -1) not in (-1, len(shape) - 1):
            raise self._refuse(node)
        column = self.emit.reshape(self._floats(source), [*shape, 1])
        rank = self._ranks(column, shape, largest=bool(attribute(node, "largest", 1)))
        matrix = self.emit.same_number(
            self.emit.reshape(rank, [*shape[:-1], 1, shape[-1]]), self.emit.places(shape_of(order)[-1], column=True)
        )
        if values.uses() or values.is_graph_output():
            picked = self.emit.reshape(self.emit("MatMul", matrix, column), shape_of(values))
            if source in self.ids:
                self._put_ids(values, Ids(self.emit, shape_of(values), lambda: picked))
            else:
                self._put(values, self.emit.typed(picked, values.dtype))
        self._put_ids(order, self._of_matrix(matrix, shape_of(order), shape[-1]))

    def _ranks(self, column: ir.Value, shape: list[int], largest: bool) -> ir.Value:
        """Return how many entries come before each entry of the last axis, (*shape)."""
        size = shape[-1]
        check_size([*shape, size])
        row = self.emit.reshape(column, [*shape[:-1], 1, size])
        high, low = (row, column) if largest else (column, row)
        above = self.emit.above(high, low)
        if self.arithmetic:
            below = self.emit.above(low, high)
            equal = self.emit("Sub", self.emit("Sub", self.emit.number(1), above), below)
        else:
            equal = self.emit.flag("Equal", row, column)
        lower_index = self.emit.constant(np.tril(np.ones((size, size), np.float32), -1))
        ahead = self.emit("Add", above, self.emit("Mul", equal, lower_index))
        return self.emit.sum_last(ahead, name=RANK)

    def _of_matrix(self, matrix: ir.Value, shape: list[int], size: int) -> Ids:
        def numbers() -> ir.Value:
            return self.emit.sum_last(self.emit("Mul", matrix, self.emit.places(size)))

        return Ids(self.emit, shape, numbers, matrix, size)

    def _best(self, node: ir.Node) -> None:
        """Find the first of the best entries: of them, the one with the largest number counted from the end."""
        source, output = node.inputs[0], node.outputs[0]
        shape, keep = shape_of(source), bool(attribute(node, "keepdims", 1))
        last = attribute(node, "axis", 0) in (-1, len(shape) - 1)
        if not last or attribute(node, "select_last_index", 0):
            raise self._refuse(node)
        values, size = self._floats(source), shape[-1]
        is_max = node.op_type == "ArgMax"
        best = self.emit.extreme_last(values, is_max)
        if self.arithmetic:
            worse = self.emit.above(best, values) if is_max else self.emit.above(values, best)
            is_best = self.emit("Sub", self.emit.number(1), worse)
        else:
            is_best = self.emit.flag("Equal", values, best)
        from_end = self.emit("Mul", is_best, self.emit.constant(np.arange(size, 0, -1, dtype=np.float32)))
        first = self.emit.extreme_last(from_end, True)
        matrix = self.emit.reshape(self.emit.same_number(from_end, first), [*shape_of(output), size])

        def numbers() -> ir.Value:
            place = self.emit("Sub", self.emit.number(size), first)
            return self.emit.reshape(place, shape_of(output))

        assert keep == (len(shape_of(output)) == len(shape))
        self._put_ids(output, Ids(self.emit, shape_of(output), numbers, matrix, size))

    # nodes that move

    def _gather(self, node: ir.Node) -> None:
        source, places, output = node.inputs[0], node.inputs[1], node.outputs[0]
        assert source is not None and places is not None
        if places not in self.ids:
            self._as_numbers(node)
            return
        integer = self._is_integer(source)
        values = self._floats(source) if integer else source
        picked = self._picked(node, values, shape_of(source), self.ids[places])
        if integer:
            self._put_ids(output, Ids(self.emit, shape_of(output), lambda: picked))
        else:
            self._put(output, picked)

    def _picked(self, node: ir.Node, values: ir.Value, shape: list[int], ids: Ids) -> ir.Value:
        axis = attribute(node, "axis", 0) % len(shape)
        if axis == 0:
            return self._picked_rows(values, shape, ids)
        if axis == len(shape) - 1 == 1 and len(ids.shape) == 1:
            columns = self.emit("Transpose", ids.matrix(shape[-1]), perm=[1, 0])
            return self.emit("MatMul", values, self.emit.typed(columns, values.dtype))
        raise self._refuse(node)

    def _picked_rows(self, values: ir.Value, shape: list[int], ids: Ids) -> ir.Value:
        size, rest, batch = shape[0], math.prod(shape[1:]), []
        matrix_of, within = ids, ids.images
        if within is not None and within[1] * within[0].shape[0] == size:
            matrix_of, size = within
            batch = matrix_of.shape[:1]
        matrix = matrix_of.matrix(size)
        matrix = self.emit.reshape(matrix, [*batch, math.prod(matrix_of.shape) // math.prod(batch), size])
        if len(shape) == 1:
            product = self.emit("Mul", matrix, self.emit.reshape(values, [*batch, 1, size]))
            return self.emit.reshape(self.emit.sum_last(product), ids.shape)
        rows = self.emit.reshape(values, [*batch, size, rest])
        product = self.emit("MatMul", self.emit.typed(matrix, values.dtype), rows)
        return self.emit.reshape(product, [*ids.shape, *shape[1:]])

    def _split(self, node: ir.Node) -> None:
        """Split the matrix of ids rather than make one for each part."""
        ids = self.ids.get(node.inputs[0]) if node.inputs[0] is not None else None
        axis = attribute(node, "axis", 0)
        if ids is None or ids.one_hot is None or axis not in (-1, len(ids.shape) - 1):
            self._as_numbers(node)
            return
        parts = self.emit.split(ids.one_hot, node, axis=len(ids.shape) - 1)
        for output, part in zip(node.outputs, parts, strict=True):
            self._put_ids(output, self._of_matrix(part, shape_of(output), ids.size))

    def _as_numbers(self, node: ir.Node) -> None:
        """Write the same node for float32 in place of integers."""
        if node.op_type not in (*MOVING, *COUNTING):
            raise self._refuse(node)
        data = range(len(node.inputs)) if node.op_type in (*COUNTING, "Concat") else DATA.get(node.op_type, (0,))
        inputs = [self._floats(value) if i in data and value else value for i, value in enumerate(node.inputs)]
        outputs = self.emit.many(node, inputs)
        for output, made in zip(node.outputs, outputs, strict=True):
            self._put_ids(output, Ids(self.emit, shape_of(output), partial(_same, made), images=self._images(node)))

    def _images(self, node: ir.Node) -> tuple[Ids, int] | None:
        """Return the ids within the images where a node makes rows of a flattened batch of them.

        An Add of each image's first row makes them, (B, k), and a Reshape flattens these.
        """
        ids = self.ids.get(node.inputs[0]) if node.inputs[0] is not None else None
        if ids is None:
            return None
        if node.op_type == "Reshape":
            return ids.images
        offsets = node.inputs[1].const_value if node.op_type == "Add" and node.inputs[1] is not None else None
        if offsets is None or len(ids.shape) != 2 or list(offsets.shape.numpy()) != [ids.shape[0], 1]:
            return None
        first = offsets.numpy().ravel()
        step = int(first[1]) if len(first) > 1 else 0
        return (ids, step) if step and (first == np.arange(len(first)) * step).all() else None

    # truth values

    def _cast(self, node: ir.Node) -> None:
        source, output = node.inputs[0], node.outputs[0]
        assert source is not None
        if output.dtype in INTEGERS:
            old = self.ids.get(source)
            numbers = self._floats(source)
            made = old if old is not None else Ids(self.emit, shape_of(output), lambda: numbers)
            self._put_ids(output, made)
        else:
            self._put(output, self.emit.typed(self._floats(source), output.dtype))

    def _compared(self, node: ir.Node) -> None:
        first, second = node.inputs
        output = node.outputs[0]
        one_hot = self._one_hot(node) if node.op_type == "Equal" else None
        if one_hot is not None:
            self.flags[output] = one_hot
            return
        left, right = self._floats(first), self._floats(second)
        if not self.arithmetic:
            self.flags[output] = self.emit.flag(node.op_type, left, right)
        elif node.op_type == "Equal":
            integer = self._is_integer(first) and self._is_integer(second)
            self.flags[output] = self.emit.same_number(left, right) if integer else self.emit.equal(left, right)
        else:
            high, low = (left, right) if node.op_type.startswith("Greater") else (right, left)
            strict = not node.op_type.endswith("OrEqual")
            above = self.emit.above(high, low) if strict else self.emit.above(low, high)
            self.flags[output] = above if strict else self.emit("Sub", self.emit.number(1), above)

    def _one_hot(self, node: ir.Node) -> ir.Value | None:
        """Return the matrix of ids where a node compares them, each in a row of its own, with all places."""
        for column, constant in (node.inputs, node.inputs[::-1]):
            tensor = constant.const_value if constant is not None else None
            producer = column.producer() if column is not None else None
            source = producer.inputs[0] if producer is not None else None
            ids = self.ids.get(source) if source is not None else None
            if column not in self.ids or tensor is None or ids is None or ids.one_hot is None:
                continue
            places = tensor.numpy()
            in_a_row = places.shape[-1:] == (ids.size,) == (places.size,) and (places.ravel() == range(ids.size)).all()
            if in_a_row and shape_of(column) == [*ids.shape, 1]:
                return ids.one_hot
        return None

    def _logic(self, node: ir.Node) -> None:
        values = [self._floats(value) for value in node.inputs]
        output, emit = node.outputs[0], self.emit
        if node.op_type == "Where":
            chosen = emit("Mul", values[0], values[1])
            other = emit("Mul", emit("Sub", emit.number(1), values[0]), values[2])
            self._put(output, emit.typed(emit("Add", chosen, other), output.dtype))
        elif node.op_type == "Not":
            self.flags[output] = emit("Sub", emit.number(1), values[0])
        elif node.op_type == "Xor":
            raise self._refuse(node)
        else:
            self.flags[output] = emit("Mul", *values) if node.op_type == "And" else emit("Max", *values)


def _same(value: ir.Value) -> ir.Value:
    return value


def attribute(node: ir.Node, name: str, default: int) -> int:
    """Return a whole number of a node."""
    held: Any = node.attributes.get(name)
    return default if held is None else held.as_int()
