"""The strict check of every graph we call exportable: fixed shapes, and only what the target takes.

One axis may be free: the first of inputs and outputs, where the input calls it "batch". Within the graph the images may
be in another axis.
"""

from collections.abc import Collection, Iterator, Mapping

import onnx
import onnx_ir as ir

from gtp_exporters.errors import StaticCheckError
from gtp_exporters.graph.files import restore, skeleton
from gtp_exporters.options import MAX_TOPK, OPSETS

BATCH = "batch"  # name of the free axis

# Sizes or control flow that depend on data, or operators that TensorRT's parser refuses in some form.
FORBIDDEN = frozenset("Compress GatherND If Loop NonZero Range Scan ScatterElements ScatterND Shape Unique".split())

# Operators beside ONNX's own that a target's runtime has, by domain.
OWN_OPERATORS = {"onnxruntime": {"com.microsoft": frozenset(["MatMulNBits"])}}

# What TensorRT 10's parser takes, of the operators that Vision Transformers are made of.
TENSORRT_OPERATORS = frozenset(
    """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv Cos
    CumSum DequantizeLinear Div Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements Gelu Gemm
    GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Identity InstanceNormalization
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul Max MaxPool Mean Min Mul Neg Not
    Or Pad Pow QuantizeLinear Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round Sigmoid Sign Sin Slice Softmax Softplus Split Sqrt
    Squeeze Sub Sum Tanh Tile TopK Transpose Unsqueeze Where Xor
    """.split()
)


def infer_shapes(model: ir.Model) -> ir.Model:
    """Run ONNX's checker with full shape inference; every tensor of the graph returned has its shape.

    Raises:
        StaticCheckError: the graph is not valid ONNX.
    """
    proto, weights = skeleton(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StaticCheckError(f"the graph is not valid ONNX: {error}") from error
    return restore(inferred, weights)


def check_static(model: ir.Model, target: str = "tensorrt") -> None:
    """Check a graph with inferred shapes.

    Args:
        model: as ``infer_shapes`` returned it.
        target: with "tensorrt" its operators and its limit of TopK are checked as well.

    Raises:
        StaticCheckError: names every node that does not fit, and why.
    """
    findings = list(problems(model, target))
    if findings:
        raise StaticCheckError("the graph is not static for this target:\n  " + "\n  ".join(findings))


def problems(model: ir.Model, target: str) -> Iterator[str]:
    """Yield what does not fit, a line a finding."""
    own = OWN_OPERATORS.get(target, {})
    yield from _opset_problems(model, own)
    free = is_free(model)
    for value in (*model.graph.inputs, *model.graph.outputs):
        yield from _shape_problems(value, "graph", free)
        if free and value.shape is not None and not _is_batch(value):
            yield f"graph: the first axis of {value.name!r} is not {BATCH!r}, and another one's is"
    for node in model.graph:
        who = f"{node.op_type} {node.name or node.outputs[0].name!r}"
        if not (free and _counts_images(node)):
            yield from _operator_problems(node, who, target)
        if node.op_type == "TopK":
            yield from _topk_problems(node, who, target)
        for value in node.outputs:
            yield from _shape_problems(value, who, free)


def is_free(model: ir.Model) -> bool:
    """Whether a graph takes any number of images: the first axis of an input is free and called "batch"."""
    return any(_is_batch(value) for value in model.graph.inputs)


def _is_batch(value: ir.Value) -> bool:
    first = value.shape[0] if value.shape else None
    return isinstance(first, ir.SymbolicDim) and first.value == BATCH


def _counts_images(node: ir.Node) -> bool:
    """Whether a node gives the number of images of the input, and nothing else of its shape."""
    bounds = {name: node.attributes[name].as_int() for name in ("start", "end") if name in node.attributes}
    value = node.inputs[0] if node.op_type == "Shape" else None
    return value is not None and value.is_graph_input() and bounds == {"start": 0, "end": 1}


def _opset_problems(model: ir.Model, own: Mapping[str, Collection[str]]) -> Iterator[str]:
    for domain, version in model.opset_imports.items():
        if domain in own:
            continue
        if domain:
            yield f"operator domain {domain!r}: only ONNX's own operators are portable"
        elif version not in OPSETS:
            yield f"opset {version}: supported are {OPSETS[0]} to {OPSETS[-1]}"


def _operator_problems(node: ir.Node, who: str, target: str) -> Iterator[str]:
    if node.domain and node.op_type not in OWN_OPERATORS.get(target, {}).get(node.domain, ()):
        yield f"{who}: from the domain {node.domain!r}, which is not portable"
    elif node.op_type in FORBIDDEN:
        yield f"{who}: sizes or control flow that depend on data are never static"
    elif target == "tensorrt" and node.op_type not in TENSORRT_OPERATORS:
        yield f"{who}: TensorRT's parser does not take this operator: try another --target"


def _topk_problems(node: ir.Node, who: str, target: str) -> Iterator[str]:
    size = node.inputs[1]
    if size is None or not size.is_initializer() or size.const_value is None:
        yield f"{who}: its k is computed, not constant"
        return
    k = int(size.const_value.numpy().item())
    if target == "tensorrt" and k > MAX_TOPK:
        yield f"{who}: k is {k}, TensorRT's limit is {MAX_TOPK}: fewer tokens, sparsity 1.0, or another --target"


def _shape_problems(value: ir.Value, who: str, free: bool) -> Iterator[str]:
    if not value.name:  # an optional output that the node does not give
        return
    if value.shape is None:
        yield f"{who}: the shape of {value.name!r} is unknown"
        return
    shape = [size if isinstance(size, int) else -1 for size in value.shape]
    allowed = int(free and (who != "graph" or shape[:1] == [-1]))
    if 0 in shape or shape.count(-1) > allowed:
        yield f"{who}: {value.name!r} has a dynamic or empty axis: {shape}"
