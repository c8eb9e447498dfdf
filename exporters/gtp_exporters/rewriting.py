"""Forms of a simplified graph that runtimes run faster; the numbers stay the same."""

from collections import Counter

import onnx
from onnx import helper


def split_key_transposes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Transpose the keys in two steps: first heads before tokens, then tokens last.

    The simplifier joins the two into one. OpenVINO moves every entry for the joined one, but takes the second step
    into its product; ONNX Runtime takes both in either form.
    """
    used = Counter(name for node in proto.graph.node for name in node.input)
    keys = {node.input[1] for node in proto.graph.node if node.op_type == "MatMul" and used[node.input[1]] == 1}
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        nodes += _steps(node) if node.op_type == "Transpose" and node.output[0] in keys else [node]
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _steps(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    perm = list(next(entry.ints for entry in node.attribute if entry.name == "perm"))
    rank = len(perm)
    heads_first = [*perm[:-2], perm[-1], perm[-2]]
    if perm[-2] != rank - 1 or heads_first == list(range(rank)):  # values, or nothing but the second step
        return [node]
    between = f"{node.output[0]}_heads"
    first = helper.make_node("Transpose", node.input, [between], f"{node.name}_heads", perm=heads_first)
    last = [*range(rank - 2), rank - 1, rank - 2]
    return [first, helper.make_node("Transpose", [between], node.output, node.name, perm=last)]
