"""What the runtimes can build. Sources: ONNX-TensorRT's docs/operators.md; builds with TensorRT-RTX."""

from collections.abc import Sequence
from typing import Literal, get_args

from gtp_exporters.errors import LimitError
from gtp_models.gtp.config import GTPConfig

Target = Literal["tensorrt", "onnxruntime", "openvino"]
TARGETS: tuple[str, ...] = get_args(Target)

MAX_TOPK = 3840  # TensorRT's: a larger k parses, then fails to build
OPSETS = range(18, 24)

# Sizes or control flow that depend on data, or operators that TensorRT's parser refuses in some form.
FORBIDDEN = frozenset("Compress GatherND If Loop NonZero Range Scan ScatterElements ScatterND Shape Unique".split())

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


def check_settings(config: GTPConfig, counts: Sequence[int], target: str) -> None:
    """Refuse settings that the target cannot build, before anything is traced.

    Args:
        config: the GTP settings.
        counts: tokens that attend in each layer, prefix tokens included.
        target: one of ``TARGETS``.

    Raises:
        LimitError: an exact sparsity threshold that needs a larger TopK than TensorRT has.
    """
    if target != "tensorrt" or config.sparsity == 1 or config.threshold == "calibrated":
        return
    from gtp_models.gtp.sparsity import topk_size  # not above: it loads torch, which a device has not

    for layer, (tokens, amount) in enumerate(zip(counts, config.schedule(len(counts)), strict=True)):
        size = topk_size(tokens, config.sparsity)
        if amount and size > MAX_TOPK:
            raise LimitError(
                f"sparsity={config.sparsity} with threshold='exact' sorts {size} of the {tokens}x{tokens} attention "
                f"entries in layer {layer}, but TensorRT's TopK ends at {MAX_TOPK}: use sparsity=1.0"
                f"{_nearest(tokens)}, --threshold calibrated, or --target onnxruntime or openvino (slow there: it "
                "sorts whole attention maps)"
            )


def _nearest(tokens: int) -> str:
    least = 1 - MAX_TOPK / tokens**2
    return f" (or at least {least + 0.0005:.3f})" if least > 0 else ""


def check_opset(opset: int) -> None:
    """Refuse an opset that is not supported.

    Raises:
        LimitError: outside ``OPSETS``.
    """
    if opset not in OPSETS:
        raise LimitError(f"opset {opset} is not supported: use {OPSETS[0]} to {OPSETS[-1]} (20 by default)")
