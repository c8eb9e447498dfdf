"""Forms of a simplified graph that runtimes run faster; the numbers stay the same."""

from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper


def rewrite(graph: onnx.GraphProto) -> None:
    """Apply every rule here to a simplified float32 graph, in place."""
    for rule in (split_key_transposes, fold_scales):
        nodes = rule(graph)
        del graph.node[:]
        graph.node.extend(nodes)


def split_key_transposes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Transpose the keys in two steps: first heads before tokens, then tokens last.

    The simplifier joins the two into one. OpenVINO moves every entry for the joined one, but takes the second step
    into its product; ONNX Runtime takes both in either form.
    """
    used = _uses(graph)
    keys = {node.input[1] for node in graph.node if node.op_type == "MatMul" and used[node.input[1]] == 1}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += _steps(node) if node.op_type == "Transpose" and node.output[0] in keys else [_copy(node)]
    return nodes


def _uses(graph: onnx.GraphProto) -> Counter[str]:
    names = [name for node in graph.node for name in node.input]
    return Counter([*names, *(value.name for value in graph.output)])


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _steps(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    perm = list(next(entry.ints for entry in node.attribute if entry.name == "perm"))
    rank = len(perm)
    heads_first = [*perm[:-2], perm[-1], perm[-2]]
    if perm[-2] != rank - 1 or heads_first == list(range(rank)):  # values, or nothing but the second step
        return [_copy(node)]
    between = f"{node.output[0]}_heads"
    first = helper.make_node("Transpose", node.input, [between], f"{node.name}_heads", perm=heads_first)
    last = [*range(rank - 2), rank - 1, rank - 2]
    return [first, helper.make_node("Transpose", [between], node.output, node.name, perm=last)]


def fold_scales(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Scale the weights and the bias of a product in the place of what it gives (layer scale, residual scaling).

    A scale is a constant for all channels, or one for each.
    """
    values = {tensor.name: tensor for tensor in graph.initializer}
    used, makers = _uses(graph), {name: node for node in graph.node for name in node.output}
    replaced: dict[str, onnx.NodeProto | None] = {}  # by output; None where a node goes
    for node in graph.node:
        found = _scale(node, values)
        product = makers.get(found[0]) if found else None
        if found and product is not None and used[found[0]] == 1 and _weighted(product, values, found[1], used):
            folded = _copy(product)
            folded.output[0] = node.output[0]
            _scale_weights(folded, values, found[1])
            replaced |= {product.output[0]: None, node.output[0]: folded}
    nodes = (replaced.get(node.output[0], node) for node in graph.node)
    return [_copy(node) for node in nodes if node is not None]


def _scale(node: onnx.NodeProto, values: dict[str, onnx.TensorProto]) -> tuple[str, np.ndarray] | None:
    """Return what a Mul or Div scales, and by what."""
    constant = next((name for name in node.input if name in values), None)
    if node.op_type not in ("Mul", "Div") or constant is None or (node.op_type == "Div" and node.input[1] != constant):
        return None
    scale = numpy_helper.to_array(values[constant])
    other = node.input[0] if node.input[1] == constant else node.input[1]
    if scale.dtype != np.float32 or scale.size != max(scale.shape[-1:], default=1):
        return None
    return other, (1 / scale if node.op_type == "Div" else scale).reshape(-1)


def _weighted(node: onnx.NodeProto, values: dict[str, onnx.TensorProto], scale: np.ndarray, used: Counter[str]) -> bool:
    """Whether a node is a product with constant weights of its own, of as many channels as the scale has."""
    if node.op_type not in ("Gemm", "MatMul") or not all(name in values and used[name] == 1 for name in node.input[1:]):
        return False
    shape = values[node.input[1]].dims
    return len(shape) == 2 and scale.size in (1, shape[_channels(node)])


def _channels(node: onnx.NodeProto) -> int:
    turned = any(entry.name == "transB" and entry.i for entry in node.attribute)
    return 0 if turned else 1


def _scale_weights(node: onnx.NodeProto, values: dict[str, onnx.TensorProto], scale: np.ndarray) -> None:
    weight, *bias = (values[name] for name in node.input[1:])
    by_channel = scale[:, None] if _channels(node) == 0 else scale
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * by_channel, weight.name))
    for tensor in bias:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * scale, tensor.name))
