"""Rewrites of a graph for converters that take less than ONNX has, exact or nearly: each has a name that the log shows.

The numbers stay those of the graph up to rounding; the parity pack proves what comes out.
"""

import logging
import math
from collections.abc import Callable, Iterable

import onnx_ir as ir

from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.emitter import Emitter
from gtp_exporters.graph.files import without_unused

log = logging.getLogger(__name__)
SMALLEST = 1e-4  # a divisor that is normal in fp16


def rewritten(model: ir.Model, names: Iterable[str]) -> ir.Model:
    """Return a copy of a graph after rewrites of ``REWRITES``, by name, with inferred shapes."""
    copy = model.clone()
    emit = Emitter(copy.graph, name="convert")
    for name in names:
        kind, write = REWRITES[name]
        count = 0
        for node in [node for node in copy.graph if node.op_type == kind]:
            emit.before = node
            made = write(emit, node)
            if made is not None:
                count += 1
                old = node.outputs[0]
                ir.convenience.replace_all_uses_with(old, emit.named(made, old), replace_graph_outputs=True)
        log.debug("rewrite %s: %d times", name, count)
    return infer_shapes(without_unused(copy))


def computed_gemm(emit: Emitter, node: ir.Node) -> ir.Value | None:
    """Write a Gemm of two computed factors as MatMul and Add: onnx2tf takes the second factor for a constant."""
    left, right, *added = node.inputs
    assert right is not None
    scales = [float(node.attributes[name].value) for name in ("alpha", "beta") if name in node.attributes]
    if right.is_initializer() or any(scale != 1 for scale in scales):
        return None
    factors = [_turned(emit, node, name, value) for name, value in (("transA", left), ("transB", right))]
    product = emit("MatMul", *factors)
    return emit("Add", product, added[0]) if added and added[0] is not None else product


def _turned(emit: Emitter, node: ir.Node, name: str, value: ir.Value | None) -> ir.Value | None:
    turned = name in node.attributes and node.attributes[name].as_int()
    return emit("Transpose", value, perm=[1, 0]) if turned else value


def clip_from_below(emit: Emitter, node: ir.Node) -> ir.Value | None:
    """Write a Clip with a minimum alone as ``relu(x - minimum) + minimum``.

    onnx2tf makes RELU of it, and of Max, where the minimum is small: the length of a token of zeros would be 0.
    """
    value, least, *most = node.inputs
    if least is None or any(part is not None for part in most):
        return None
    return emit("Add", emit("Relu", emit("Sub", value, least)), least)


def gelu_by_erf(emit: Emitter, node: ir.Node) -> ir.Value | None:
    """Write Gelu as ``x/2 * (1 + erf(x/sqrt 2))``: MNN's own Gelu is an approximation."""
    if "approximate" in node.attributes and node.attributes["approximate"].as_string() != "none":
        return None
    value = node.inputs[0]
    error = emit("Erf", emit("Mul", value, emit.number(1 / math.sqrt(2))))
    return emit("Mul", emit("Mul", value, emit.number(0.5)), emit("Add", error, emit.number(1)))


def scaled_norm(emit: Emitter, node: ir.Node) -> ir.Value | None:
    """Write the norm of a token as ``m |x / m|`` with m = max|x|: in fp16 the squares of a norm of 256 overflow.

    The sum of squares is between 1 and the number of channels then, so a minimum that fp16 takes for 0 is 1e-4 there.
    """
    total = _source(node.inputs[0], "Clip") or node
    squares = _source(total.inputs[0], "ReduceSum")
    product = None if squares is None else _source(squares.inputs[0], "Mul")
    if squares is None or product is None or product.inputs[0] is not product.inputs[1]:
        return None
    if "keepdims" in squares.attributes and not squares.attributes["keepdims"].as_int():
        return None
    token, axes = product.inputs[0], squares.inputs[1]
    largest = emit("Max", emit.extreme_last(emit("Abs", token), True), emit.number(SMALLEST))
    scaled = emit("Div", token, largest)
    length = emit("ReduceSum", emit("Mul", scaled, scaled), axes, keepdims=1)
    if total is not node:
        length = emit("Max", length, emit.number(SMALLEST))
    return emit("Mul", emit("Sqrt", length), largest)


def _source(value: ir.Value | None, kind: str) -> ir.Node | None:
    """Return the node that made a value, if it is of this kind."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == kind else None


REWRITES: dict[str, tuple[str, Callable[[Emitter, ir.Node], ir.Value | None]]] = {
    "Gemm of computed factors as MatMul and Add": ("Gemm", computed_gemm),
    "Clip from below by Relu": ("Clip", clip_from_below),
    "Gelu by Erf": ("Gelu", gelu_by_erf),
    "Norm of a scaled token": ("Sqrt", scaled_norm),
}
