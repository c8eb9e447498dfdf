"""A float32 graph of an export as a PyTorch module: the same nodes, one call of PyTorch each.

Converters that start from PyTorch take this module, not the patched model, so that every file comes from the one graph
that was proven: of any weights, method and form, with layers and constants folded. The graph is static, so what ONNX
reads from tensors (shapes, axes, sizes) is read once, here. A test holds every operator to ONNX Runtime.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtp_exporters.errors import ConversionError
from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.files import DATA_SUFFIX, read

KINDS = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.BOOL: torch.bool,
}


class Node:
    """A node of the graph, with what is constant of it read.

    Args:
        node: of the graph.
    """

    def __init__(self, node: ir.Node) -> None:
        self.kind, self.name, self.outputs = node.op_type, str(node.name), [str(value.name) for value in node.outputs]
        self.inputs = [None if value is None else str(value.name) for value in node.inputs]
        self._constants = [None if value is None else value.const_value for value in node.inputs]
        self._attributes = {name: attribute.value for name, attribute in node.attributes.items()}

    def __call__(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self._attributes.get(name, default)

    def is_constant(self, index: int) -> bool:
        """Whether an input is a weight."""
        return index < len(self.inputs) and self._constants[index] is not None

    def numbers(self, index: int) -> list[int] | None:
        """Return the whole numbers that an input holds; None where there is no such input."""
        held = self._constants[index] if index < len(self.inputs) else None
        return None if held is None else [int(number) for number in np.atleast_1d(held.numpy())]

    def number(self, index: int) -> float | None:
        """Return the one number that an input holds; None where there is no such input."""
        held = self._constants[index] if index < len(self.inputs) else None
        return None if held is None else float(held.numpy().reshape(()))


class TorchGraph(nn.Module):
    """A graph as a module: images in, the graph's outputs out, in their order.

    Each weight is a tensor of its own, contiguous: XNNPACK writes those that share memory wrongly, without an error.

    Args:
        model: a graph with one input and inferred shapes.

    Raises:
        ConversionError: an operator that has no entry in ``OPERATORS``.
    """

    def __init__(self, model: ir.Model) -> None:
        super().__init__()
        self._input = str(model.graph.inputs[0].name)
        self._answers = [str(value.name) for value in model.graph.outputs]
        self._nodes = [Node(node) for node in model.graph]
        for node in self._nodes:
            if node.kind not in OPERATORS:
                raise ConversionError(f"{node.name}: PyTorch has no form of ONNX's {node.kind} here")
        self._weights: dict[str, str] = {}
        for name, value in model.graph.initializers.items():
            assert value.const_value is not None
            self._weights[name] = f"weight_{len(self._weights)}"
            values = torch.from_numpy(np.array(value.const_value.numpy(), order="C"))
            self.register_buffer(self._weights[name], values)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the nodes in their order."""
        values: dict[str, Tensor] = {self._input: images}
        values |= {name: getattr(self, held) for name, held in self._weights.items()}
        for node in self._nodes:
            inputs = [None if name is None else values[name] for name in node.inputs]
            made = OPERATORS[node.kind](node, inputs)
            results = (made,) if isinstance(made, Tensor) else made
            values |= zip(node.outputs, results, strict=True)
        return tuple(values[name] for name in self._answers)


def read_graph(path: Path) -> ir.Model:
    """Read a graph that ``save`` wrote, its weights beside it where they are many, with inferred shapes."""
    data = path.name + DATA_SUFFIX
    return infer_shapes(read(path, data if path.with_name(data).exists() else None))


def example(model: ir.Model) -> Tensor:
    """Return zeros in the shape of the graph's images."""
    images = model.graph.inputs[0]
    assert images.shape is not None and images.dtype is not None
    return torch.zeros(tuple(images.shape.numpy()), dtype=KINDS[images.dtype])


Inputs = Sequence[Any]  # tensors; None where an optional input is missing
Operator = Callable[[Node, Inputs], "Tensor | Sequence[Tensor]"]


def _gemm(node: Node, inputs: Inputs) -> Tensor:
    left, right, *added = inputs
    left = left.T if node("transA", 0) else left
    scales = node("alpha", 1.0), node("beta", 1.0)
    if node.is_constant(1) and scales == (1.0, 1.0) and (not added or added[0].ndim == 1):
        return F.linear(left, right if node("transB", 0) else right.T, *added)  # what targets have kernels for
    product = _product(left[None], (right.T if node("transB", 0) else right)[None])[0]
    product = product if scales[0] == 1 else product * scales[0]
    if not added:
        return product
    return product + (added[0] if scales[1] == 1 else added[0] * scales[1])


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return a product of matrices; XNNPACK has bmm, and matmul would be copies around one."""
    same = left.ndim == right.ndim == 3 and left.shape[0] == right.shape[0]
    return torch.bmm(left, right) if same else torch.matmul(left, right)


def _matmul(node: Node, inputs: Inputs) -> Tensor:
    left, right = inputs
    return F.linear(left, right.T) if node.is_constant(1) and right.ndim == 2 else _product(left, right)


def _conv(node: Node, inputs: Inputs) -> Tensor:
    images, weight, *bias = inputs
    axes = weight.ndim - 2
    pads = node("pads", [0] * 2 * axes)
    if pads[:axes] != pads[axes:] or node("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise ConversionError(f"{node.name}: a convolution whose padding has two sides")
    convolve = {1: F.conv1d, 2: F.conv2d}[axes]
    ones = [1] * axes
    given = (node("strides", ones), pads[:axes], node("dilations", ones), node("group", 1))
    return convolve(images, weight, bias[0] if bias else None, *given)


def _reshape(node: Node, inputs: Inputs) -> Tensor:
    values, shape = inputs[0], node.numbers(1) or []
    if not node("allowzero", 0):
        shape = [values.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return values.reshape(shape)


def _unsqueeze(node: Node, inputs: Inputs) -> Tensor:
    values, axes = inputs[0], node.numbers(1) or []
    ranks = values.ndim + len(axes)
    for axis in sorted(axis % ranks for axis in axes):
        values = values.unsqueeze(axis)
    return values


def _squeeze(node: Node, inputs: Inputs) -> Tensor:
    axes = node.numbers(1)
    return inputs[0].squeeze() if axes is None else inputs[0].squeeze(axes)


def _split(node: Node, inputs: Inputs) -> Sequence[Tensor]:
    axis = node("axis", 0)
    return inputs[0].split(node.numbers(1) or inputs[0].shape[axis] // len(node.outputs), axis)


def _gather(node: Node, inputs: Inputs) -> Tensor:
    values, ids = inputs
    axis, places = node("axis", 0), node.numbers(1)
    if places is not None and not ids.ndim:
        return values.select(axis, places[0])
    picked = values.index_select(axis % values.ndim, ids.reshape(-1))
    return picked if ids.ndim == 1 else picked.unflatten(axis % values.ndim, ids.shape)


def _div(left: Tensor, right: Tensor) -> Tensor:
    return torch.div(left, right, rounding_mode=None if left.is_floating_point() else "trunc")


def _expand(node: Node, inputs: Inputs) -> Tensor:
    return inputs[0].expand(np.broadcast_shapes(inputs[0].shape, tuple(node.numbers(1) or [])))


def _slice(node: Node, inputs: Inputs) -> Tensor:
    values, starts, ends = inputs[0], node.numbers(1) or [], node.numbers(2) or []
    steps = node.numbers(4) or [1] * len(starts)
    for axis, start, end, step in zip(node.numbers(3) or range(len(starts)), starts, ends, steps, strict=True):
        if step < 1:
            raise ConversionError(f"{node.name}: a slice that goes back")
        values = values[(slice(None),) * (axis % values.ndim) + (slice(start, end, step),)]
    return values


def _pad(node: Node, inputs: Inputs) -> Tensor:
    values, pads = inputs[0], node.numbers(1) or []
    if node("mode", "constant") != "constant" or len(pads) != 2 * values.ndim:
        raise ConversionError(f"{node.name}: padding with other than a constant")
    sides = [side for axis in reversed(range(values.ndim)) for side in (pads[axis], pads[axis + values.ndim])]
    return F.pad(values, sides, value=node.number(2) or 0.0)


def _topk(node: Node, inputs: Inputs) -> Sequence[Tensor]:
    count = (node.numbers(1) or [0])[0]
    return inputs[0].topk(count, node("axis", -1), bool(node("largest", 1)), bool(node("sorted", 1)))


def _reduced(reduce: Callable[..., Tensor]) -> Operator:
    def operator(node: Node, inputs: Inputs) -> Tensor:
        axes = node.numbers(1) or list(range(inputs[0].ndim))
        return reduce(inputs[0], axes, keepdim=bool(node("keepdims", 1)))

    return operator


def _clip(node: Node, inputs: Inputs) -> Tensor:
    return inputs[0].clamp(node.number(1), node.number(2))


def _layer_norm(node: Node, inputs: Inputs) -> Tensor:
    values, weight, *bias = inputs
    axis = node("axis", -1) % values.ndim
    return F.layer_norm(values, values.shape[axis:], weight, bias[0] if bias else None, node("epsilon", 1e-5))


def _arg(pick: Callable[..., Tensor]) -> Operator:
    def operator(node: Node, inputs: Inputs) -> Tensor:
        return pick(inputs[0], node("axis", 0), keepdim=bool(node("keepdims", 1)))

    return operator


def _plain(function: Callable[..., Any]) -> Operator:
    return lambda node, inputs: function(*inputs)


def _cast(node: Node, inputs: Inputs) -> Tensor:
    return inputs[0].to(KINDS[ir.DataType(node("to"))])


PLAIN: Mapping[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "And": torch.logical_and,
    "Cos": torch.cos,
    "Div": _div,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Identity": torch.clone,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Where": torch.where,
}
OPERATORS: Mapping[str, Operator] = {
    **{name: _plain(function) for name, function in PLAIN.items()},
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda node, inputs: torch.cat(list(inputs), node("axis")),
    "Conv": _conv,
    "Expand": _expand,
    "Gather": _gather,
    "GatherElements": lambda node, inputs: inputs[0].gather(node("axis", 0), inputs[1].long()),
    "Gelu": lambda node, inputs: F.gelu(inputs[0], approximate=node("approximate", "none")),
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Pad": _pad,
    "ReduceL2": _reduced(lambda values, axes, keepdim: (values * values).sum(axes, keepdim).sqrt()),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMin": _reduced(torch.amin),
    "ReduceSum": _reduced(torch.sum),
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": lambda node, inputs: F.softmax(inputs[0], node("axis", -1)),
    "Split": _split,
    "Squeeze": _squeeze,
    "TopK": _topk,
    "Tile": lambda node, inputs: inputs[0].repeat(node.numbers(1) or []),
    "Transpose": lambda node, inputs: inputs[0].permute(list(node("perm"))),
    "Unsqueeze": _unsqueeze,
}
