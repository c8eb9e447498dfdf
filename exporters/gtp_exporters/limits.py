"""Limits of the runtimes. Sources: ONNX-TensorRT's docs/operators.md; builds with TensorRT-RTX."""

from typing import TYPE_CHECKING

from gtp_exporters.errors import LimitError
from gtp_runtime.precisions import PRECISIONS, Precision

if TYPE_CHECKING:
    from gtp_models.plan import Plan

MAX_TOPK = 3840  # TensorRT's: a larger k parses, then fails to build
OPSETS = range(18, 24)

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


def check_limits(plan: "Plan", target: str) -> None:
    """Check that the target can build the graphs, before anything is traced.

    Args:
        plan: what happens to the tokens.
        target: one of ``gtp_runtime.precisions.TARGETS``.

    Raises:
        LimitError: a layer sorts more values than TensorRT's TopK takes.
    """
    if target != "tensorrt":
        return
    for index, layer in enumerate(plan.layers):
        shape = plan.layer_shape(index)
        size = plan.settings.topk(shape) if layer.num_prop else 0
        if size > MAX_TOPK:
            raise LimitError(
                f"layer {index} sorts {size} values, but TensorRT's TopK takes at most {MAX_TOPK}: "
                f"{plan.settings.topk_remedy(shape, MAX_TOPK)}, or --target onnxruntime or openvino"
            )


def check_precision(name: str, target: str | None = None) -> Precision:
    """Return the precision of a name, and check that a target's runtime runs it.

    Raises:
        LimitError: there is none, or the target does not run it.
    """
    if name not in PRECISIONS:
        raise LimitError(f"precision={name!r} is unknown: choose one of {', '.join(PRECISIONS)}")
    targets = PRECISIONS[name].targets
    if target is not None and target not in targets:
        raise LimitError(
            f"{target} does not run {name}, {' and '.join(targets)} does: export with --target {targets[0]}"
        )
    return PRECISIONS[name]


def check_opset(opset: int) -> None:
    """Check that an opset is supported.

    Raises:
        LimitError: outside ``OPSETS``.
    """
    if opset not in OPSETS:
        raise LimitError(f"opset {opset} is not supported: use {OPSETS[0]} to {OPSETS[-1]} (20 by default)")
