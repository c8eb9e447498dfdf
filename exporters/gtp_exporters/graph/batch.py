"""One graph for any number of images in a range, made of two graphs of the same model for two fixed numbers.

What differs between the two is what depends on the batch: sizes in reshapes, and tables with rows for each image. In a
reshape the size becomes -1. A table is written for the largest batch and cut to the images of a run by a Slice, whose
end is the first size of the input. Nothing else may differ: it is an error that names the node.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from gtp_exporters.errors import LimitError
from gtp_exporters.graph.check import BATCH
from gtp_exporters.graph.emitter import Emitter, shape_of
from gtp_exporters.graph.files import without_unused

TRACED = (2, 3)  # images of the two graphs; a single image has a form of its own
WHOLE = 1 << 24  # float32 counts in ones up to here


def free_batch(first: ir.Model, second: ir.Model, largest: int) -> ir.Model:
    """Return a graph whose inputs and outputs have a free first axis, "batch".

    Args:
        first, second: the same model for two fixed numbers of images above 1, with inferred shapes; not changed.
        largest: the most images of a run.

    Raises:
        LimitError: they differ in more than the number of images: names the node.
    """
    copy = first.clone()
    _Free(copy, second, largest).write()
    return without_unused(copy)


@dataclass(frozen=True)
class Table:
    """Rows for each image, (images, rows, ...): those of image i are ``start + i * step``."""

    start: np.ndarray
    step: np.ndarray

    def rows(self, images: int) -> np.ndarray:
        """Return the rows of that many images, (images, rows, ...)."""
        numbers = np.arange(images).astype(self.step.dtype).reshape(-1, *[1] * self.start.ndim)
        return np.asarray(self.start + numbers * self.step)

    @classmethod
    def of(cls, values: np.ndarray, images: int) -> "Table":
        """Return the table of which the first images' rows are these, (images * rows, ...)."""
        parts = values.reshape(images, len(values) // images, *values.shape[1:])
        is_number = np.issubdtype(values.dtype, np.number)
        return cls(parts[0], parts[1] - parts[0] if is_number else np.zeros_like(parts[0]))

    def holds(self, values: np.ndarray, images: int) -> bool:
        """Whether these are the rows of that many images."""
        return np.array_equal(self.rows(images).reshape(-1, *values.shape[1:]), values)

    def is_exact(self, images: int) -> bool:
        """Whether no number is rounded in so many rows."""
        return not self.step.any() or float(np.abs(self.rows(images)).max()) < WHOLE


class _Free:
    """Writes the first graph anew where it differs from the second."""

    def __init__(self, model: ir.Model, second: ir.Model, largest: int) -> None:
        self.graph, self.second, self.largest = model.graph, second.graph, largest
        self.images = self.graph.inputs[0]
        self.sizes = [shape_of(graph.inputs[0])[0] for graph in (self.graph, self.second)]
        self.emit = Emitter(self.graph, name="batch")
        self.twins: dict[ir.Value, ir.Value] = {}  # of what the first graph computes
        self.free: dict[ir.Value, ir.Shape] = {}
        self.cuts: dict[ir.Value, ir.Value] = {}  # by the table
        self._count: ir.Value | None = None

    def write(self) -> None:
        """Write all nodes; the shapes come last, as the writing reads the fixed ones."""
        self._pair(self.graph.inputs, self.second.inputs, "the graph")
        for node, twin in zip(*self._nodes(), strict=True):
            who = f"{node.op_type} {node.name or node.outputs[0].name!r}"
            self._check_alike(node, twin, who)
            self._pair(node.outputs, twin.outputs, who)
            for index, (value, other) in enumerate(zip(node.inputs, twin.inputs, strict=True)):
                if value is not None and other is not None:
                    self._input(node, index, value, other, who)
        for value, shape in self.free.items():
            value.shape = shape

    def _nodes(self) -> tuple[list[ir.Node], list[ir.Node]]:
        nodes, twins = list(self.graph), list(self.second)
        if [node.op_type for node in nodes] != [node.op_type for node in twins]:
            raise _refusal(
                f"it has {len(nodes)} nodes for {self.sizes[0]} images and {len(twins)} others for {self.sizes[1]}"
            )
        return nodes, twins

    def _check_alike(self, node: ir.Node, twin: ir.Node, who: str) -> None:
        attributes = [{name: str(held.value) for name, held in part.attributes.items()} for part in (node, twin)]
        if node.domain != twin.domain or attributes[0] != attributes[1] or len(node.inputs) != len(twin.inputs):
            raise _refusal(f"{who} has other attributes or inputs for another number of images")

    def _pair(self, values: Sequence[ir.Value], others: Sequence[ir.Value], who: str) -> None:
        for value, other in zip(values, others, strict=True):
            self.twins[value] = other
            if not value.name:  # an optional output that the node does not give
                continue
            shape, twin = shape_of(value), shape_of(other)
            if shape == twin:
                continue
            axes = [axis for axis, (size, other) in enumerate(zip(shape, twin, strict=False)) if size != other]
            if len(shape) != len(twin) or len(axes) != 1 or not self._grows(shape[axes[0]], twin[axes[0]]):
                raise _refusal(f"{who} gives {shape} for {self.sizes[0]} images and {twin} for {self.sizes[1]}")
            name = BATCH if shape[axes[0]] == self.sizes[0] else None
            sizes: list[int | ir.SymbolicDim] = [*shape]
            sizes[axes[0]] = ir.SymbolicDim(name)
            self.free[value] = ir.Shape(sizes)

    def _grows(self, size: int, other: int) -> bool:
        """Whether a size is a multiple of the number of images, by the same factor in both graphs."""
        images, others = self.sizes
        return size % images == 0 and size // images * others == other

    def _input(self, node: ir.Node, index: int, value: ir.Value, other: ir.Value, who: str) -> None:
        held, twin = value.const_value, other.const_value
        if held is None and twin is None:
            if self.twins.get(value) is not other:
                raise _refusal(f"{who} takes another input for another number of images")
            return
        if held is None or twin is None:
            raise _refusal(f"input {index} of {who} is a constant for one number of images alone")
        values, others = held.numpy(), twin.numpy()
        if values.shape == others.shape and values.tobytes() == others.tobytes():
            return
        if node.op_type == "Reshape" and index == 1:
            node.replace_input_with(1, self._reshaped(node, who))
        else:
            self.emit.before = node
            node.replace_input_with(index, self._cut(values, others, f"input {index} of {who}"))

    def _reshaped(self, node: ir.Node, who: str) -> ir.Value:
        """Return the shape of a Reshape whose size for the batch is left to be computed."""
        shape, twin = (shape_of(value) for value in (node.outputs[0], self.twins[node.outputs[0]]))
        sizes = [size if size == other else -1 for size, other in zip(shape, twin, strict=True)]
        if sizes.count(-1) != 1:
            raise _refusal(f"{who} makes {shape} for {self.sizes[0]} images and {twin} for {self.sizes[1]}")
        return self.emit.constant(np.array(sizes, np.int64))

    def _cut(self, values: np.ndarray, others: np.ndarray, what: str) -> ir.Value:
        """Return a table's rows for the images of a run."""
        table = self._table(values, others, what)
        rows, *rest = table.start.shape
        shape = [*rest] if rows == 1 else [rows * prod(rest)]
        every = self.emit.constant(np.ascontiguousarray(table.rows(self.largest).reshape(self.largest, *shape)))
        if every not in self.cuts:
            zero = self.emit.constant(np.array([0], np.int64))
            self.cuts[every] = self._typed(self.emit("Slice", every, zero, self.count, zero), [BATCH, *shape], every)
        if rows == 1:
            return self.cuts[every]
        made = self.emit("Reshape", self.cuts[every], self.emit.constant(np.array([-1, *rest], np.int64)))
        return self._typed(made, [None, *rest], every)

    def _typed(self, value: ir.Value, sizes: Sequence[int | str | None], like: ir.Value) -> ir.Value:
        value.shape = ir.Shape([size if isinstance(size, int) else ir.SymbolicDim(size) for size in sizes])
        value.type = like.type
        return value

    def _table(self, values: np.ndarray, others: np.ndarray, what: str) -> Table:
        same = values.dtype == others.dtype and values.ndim == others.ndim and values.shape[1:] == others.shape[1:]
        if not (same and values.ndim and self._grows(len(values), len(others))):
            raise _refusal(f"{what} depends on the number of images: {values.shape} and {others.shape}")
        table = Table.of(values, self.sizes[0])
        pairs = zip((values, others), self.sizes, strict=True)
        if not (all(table.holds(*pair) for pair in pairs) and table.is_exact(self.largest)):
            raise _refusal(f"{what} is a table whose further rows are not known")
        return table

    @property
    def count(self) -> ir.Value:
        """The number of images of a run, [images] int64, made in front of all nodes."""
        if self._count is None:
            before, self.emit.before = self.emit.before, next(iter(self.graph))
            made = self.emit("Shape", self.images, start=0, end=1)
            made.shape, made.type = ir.Shape([1]), ir.TensorType(ir.DataType.INT64)
            self.emit.before, self._count = before, made
        return self._count


def _refusal(problem: str) -> LimitError:
    return LimitError(
        f"this export cannot take a range of batches: {problem}; give one number of images, like --batch 8"
    )
