"""The strict check of every graph we call exportable: fixed shapes, and only what the target takes."""

from collections.abc import Iterator

import onnx
from onnx import numpy_helper

from gtp_exporters.errors import StaticCheckError
from gtp_exporters.limits import FORBIDDEN, MAX_TOPK, OPSETS, TENSORRT_OPERATORS


def infer_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Run ONNX's checker with full shape inference; every tensor gets its shape.

    Raises:
        StaticCheckError: the graph is not valid ONNX.
    """
    try:
        onnx.checker.check_model(proto, full_check=True)
        return onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StaticCheckError(f"the graph is not valid ONNX: {error}") from error


def check_static(proto: onnx.ModelProto, target: str = "tensorrt") -> None:
    """Check a graph with inferred shapes.

    Args:
        proto: as ``infer_shapes`` returned it.
        target: with "tensorrt" its operators and its limit of TopK hold as well.

    Raises:
        StaticCheckError: names every node that does not fit, and why.
    """
    found = list(problems(proto, target))
    if found:
        raise StaticCheckError("the graph is not static for this target:\n  " + "\n  ".join(found))


def problems(proto: onnx.ModelProto, target: str) -> Iterator[str]:
    """Yield what does not fit, a line a finding."""
    yield from _opset_problems(proto)
    shapes = _shapes(proto)
    sizes = {tensor.name: tensor for tensor in proto.graph.initializer}
    for value in (*proto.graph.input, *proto.graph.output):
        yield from _shape_problems(value.name, shapes, "graph")
    for node in proto.graph.node:
        who = f"{node.op_type} {node.name or node.output[0]!r}"
        yield from _operator_problems(node, who, target)
        if node.op_type == "TopK":
            yield from _topk_problems(node, who, sizes, target)
        for name in node.output:
            yield from _shape_problems(name, shapes, who)


def _opset_problems(proto: onnx.ModelProto) -> Iterator[str]:
    for opset in proto.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            yield f"operator domain {opset.domain!r}: only ONNX's own operators are portable"
        elif opset.version not in OPSETS:
            yield f"opset {opset.version}: supported are {OPSETS[0]} to {OPSETS[-1]}"


def _operator_problems(node: onnx.NodeProto, who: str, target: str) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx"):
        yield f"{who}: from the domain {node.domain!r}, which is not portable"
    elif node.op_type in FORBIDDEN:
        yield f"{who}: sizes or control flow that depend on data are never static"
    elif target == "tensorrt" and node.op_type not in TENSORRT_OPERATORS:
        yield f"{who}: not among the operators that TensorRT's parser takes (another --target may)"


def _topk_problems(node: onnx.NodeProto, who: str, sizes: dict[str, onnx.TensorProto], target: str) -> Iterator[str]:
    if node.input[1] not in sizes:
        yield f"{who}: its k is computed, not constant"
        return
    k = int(numpy_helper.to_array(sizes[node.input[1]]).item())
    if target == "tensorrt" and k > MAX_TOPK:
        yield f"{who}: k is {k}, TensorRT's limit is {MAX_TOPK}: fewer tokens, sparsity 1.0, or another --target"


def _shapes(proto: onnx.ModelProto) -> dict[str, list[int] | None]:
    values = (*proto.graph.input, *proto.graph.output, *proto.graph.value_info)
    return {value.name: _shape(value) for value in values}


def _shape(value: onnx.ValueInfoProto) -> list[int] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim]


def _shape_problems(name: str, shapes: dict[str, list[int] | None], who: str) -> Iterator[str]:
    shape = shapes.get(name) if name else []
    if shape is None:
        yield f"{who}: the shape of {name!r} is unknown"
    elif any(size <= 0 for size in shape):
        yield f"{who}: {name!r} has a dynamic or empty axis: {shape}"
