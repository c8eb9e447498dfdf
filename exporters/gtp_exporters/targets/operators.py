"""The operators that each target takes, with the source of every statement. Data: adding a target is an entry.

A target is what a graph is handed to: a compiler, or a provider of ONNX Runtime, which leaves what it does not take to
the CPU. Nothing here is said without a source, and what no source says is unknown. "Run" marks what we ran ourselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass

YES, LIMITED, UNKNOWN, NO = "yes", "limited", "unknown", "no"
VERDICTS = (YES, LIMITED, UNKNOWN, NO)  # from the best to the worst
ON_CPU, REFUSED = "runs on the CPU", "is refused, and the whole graph with it"

# What a statement rests on: a public page or thread, with the version that was read, or a run of ours.
SOURCES: dict[str, str] = {
    "onnx-tensorrt": "https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md (TensorRT 10.15)",
    "topk-tensorrt": "https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/operators/TopK.html",
    "run-tensorrt": "run: builds with TensorRT-RTX (tensorrt_rtx) on Linux",
    "build-engine": "gtp-export build-engine makes no optimisation profiles",
    "qnn-list": "https://github.com/onnxruntime/onnxruntime-qnn/blob/0131740f/docs/execution_providers/"
    "QNN-ExecutionProvider.md (2.3.0)",
    "qnn-builders": "https://github.com/onnxruntime/onnxruntime-qnn/tree/cee6c0d9/onnxruntime/core/providers/qnn/builder/"
    "opbuilder",
    "qnn-htp": "https://docs.qualcomm.com/bundle/publicresource/80-63442-50/topics/HtpOpDefSupplement.md",
    "run-qnn": "run: onnxruntime-qnn 2.7, compiled for SM8550 (HTP v73), and its x86 simulator; no device",
    "coreml-list": "https://github.com/microsoft/onnxruntime/blob/04f568d8/tools/ci_build/github/apple/"
    "coreml_supported_mlprogram_ops.md",
    "coreml-gather": "https://github.com/microsoft/onnxruntime/pull/28278",
    "npu-topk": "https://github.com/openvinotoolkit/openvino/issues/29297",
    "npu-device": "https://docs.openvino.ai/2023.3/openvino_docs_OV_UG_supported_plugins_NPU.html",
    "npu-features": "https://docs.openvino.ai/2025/documentation/compatibility-and-support/supported-devices.html",
    "rknn-list": "https://github.com/rockchip-linux/rknn-toolkit2/blob/2c2d03de/doc/RKNN-Toolkit2_OP_Support-1.6.0.md",
    "rknn-notes": "https://github.com/rockchip-linux/rknn-toolkit2/releases (1.6.0)",
    "rknn-topk": "https://github.com/airockchip/rknn-toolkit2/issues/141 and /240",
    "webnn-list": "https://github.com/microsoft/onnxruntime/blob/1aecb414/js/web/docs/webnn-operators.md",
    "webgpu-list": "https://github.com/microsoft/onnxruntime/blob/51f61772/js/web/docs/webgpu-operators.md",
    "run-webgpu": "run: onnxruntime-web 1.30, WebGPU in Chromium 150 on a software GPU",
    "nnapi-list": "https://github.com/microsoft/onnxruntime/blob/53086759/tools/ci_build/github/android/"
    "nnapi_supported_ops.md",
}


@dataclass(frozen=True)
class Limit:
    """Where a target takes an operator in part, or a source says no.

    Attributes:
        operators: names; empty for all.
        when: a name of ``gtp_exporters.targets.reading.CONDITIONS``: the nodes that it is about.
        verdict: of ``VERDICTS``, for these nodes.
        reason: in words.
        source: a key of ``SOURCES``.
        instead: what avoids it, beside another form of the graph; "" where nothing of ours does.
    """

    operators: tuple[str, ...]
    when: str
    verdict: str
    reason: str
    source: str
    instead: str = ""


@dataclass(frozen=True)
class Target:
    """A target.

    Attributes:
        title: what it is.
        outcome: what becomes of a node that it does not take: ``ON_CPU`` or ``REFUSED``.
        lists: operators that it takes, by source; those of other domains as "domain:name".
        complete: the source whose list is whole, so that it takes no operator that is not on it; "" where there is
            none: then others are unknown.
        floats: types of floating point that are taken (ONNX's names), with the source; others are unknown.
        limits: where it takes operators in part.
        notes: what else its users meet.
    """

    title: str
    outcome: str
    lists: Mapping[str, frozenset[str]]
    complete: str
    floats: Mapping[str, str]
    limits: tuple[Limit, ...]
    notes: tuple[str, ...] = ()


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_HALF = (
    "it computes in float16: a sum of squares above 65,504 (a token of norm 256, as in large models) overflows there, "
    "and 1e-24 is 0; prove the parity on the device"
)

TARGETS: dict[str, Target] = {
    "tensorrt": Target(
        title="NVIDIA TensorRT 10",
        outcome=REFUSED,
        lists={},  # that of the strict check, ``gtp_exporters.graph.check.TENSORRT_OPERATORS``
        complete="",
        floats=dict.fromkeys(("FLOAT", "FLOAT16", "BFLOAT16"), "onnx-tensorrt"),
        limits=(
            Limit(
                ("TopK",),
                "k above 3840",
                NO,
                "k is above 3840: it parses, then fails to build",
                "topk-tensorrt",
                "fewer tokens, or --sparsity 1.0",
            ),
            Limit(
                tuple(
                    "AffineGrid BitShift Col2Im Compress ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear "
                    "MatMulInteger MaxRoiPool MaxUnpool QLinearConv QLinearMatMul SequenceAt SequenceConstruct "
                    "SplitToSequence Unique".split()
                ),
                "always",
                NO,
                "the parser does not take it",
                "onnx-tensorrt",
            ),
            Limit((), "other domain", NO, "not an operator of ONNX's own: it needs a plugin", "onnx-tensorrt"),
            Limit(
                ("QuantizeLinear", "DequantizeLinear"),
                "zero point",
                NO,
                "its zero point is not 0",
                "onnx-tensorrt",
                "gtp-export quantize --target tensorrt",
            ),
            Limit(
                ("QuantizeLinear", "DequantizeLinear"),
                "uint8",
                NO,
                "uint8 is for inputs and outputs of the network alone",
                "onnx-tensorrt",
                "gtp-export quantize --target tensorrt",
            ),
            Limit(
                ("LayerNormalization",),
                "scale of another type",
                NO,
                "scale and bias must have the type of the input",
                "run-tensorrt",
            ),
            Limit(
                ("ScatterElements",),
                "reduction",
                LIMITED,
                "with a reduction TensorRT-RTX's parser refuses it",
                "run-tensorrt",
            ),
            Limit((), "dynamic shape", LIMITED, "a dynamic axis needs an optimisation profile", "build-engine"),
            Limit((), "float64", LIMITED, "float64 is cast to float32", "onnx-tensorrt"),
        ),
        notes=("int64 is taken as it is since TensorRT 9",),
    ),
    "qnn": Target(
        title="Qualcomm HTP (NPU), by ONNX Runtime's QNN provider",
        outcome=ON_CPU,
        lists={
            "qnn-list": _names(
                """
                Abs Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast Ceil Clip Concat Conv
                ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Exp Expand Flatten Floor
                Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
                GridSample GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsNaN LRN LSTM
                LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul Max MaxPool Mean Min
                Mod Mul Neg NonZero Not Or PRelu Pad Pow QuantizeLinear Reciprocal ReduceL2 ReduceMax ReduceMean
                ReduceMin ReduceProd ReduceSum Relu Reshape Resize RoiAlign Round RMSNormalization RotaryEmbedding STFT
                ScatterElements ScatterND Sigmoid Sign Sin Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub
                Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Upsample Where com.microsoft:FusedMatMul
                com.microsoft:Gelu com.microsoft:MatMulNBits com.microsoft:QuantizeLinear
                com.microsoft:DequantizeLinear com.microsoft:QuickGelu com.microsoft:RotaryEmbedding
                com.microsoft:SimplifiedLayerNormalization
                """
            ),
        },
        complete="qnn-list",
        floats={"FLOAT": "qnn-list", "FLOAT16": "qnn-list"},
        limits=(
            Limit((), "dynamic shape", NO, "shapes must be fixed", "qnn-list"),
            Limit(("TopK",), "computed k", NO, "k must be constant", "qnn-builders"),
            Limit(("TopK",), "axis not last", LIMITED, "another axis than the last costs Transposes", "qnn-builders"),
            Limit(("Gather",), "negative ids", NO, "only ids from 0 on", "qnn-list"),
            Limit(("ArgMax", "ArgMin"), "rank above 4", NO, "at most 4 axes", "qnn-htp"),
            Limit(("ArgMax", "ArgMin"), "last of equals", NO, "select_last_index must be 0", "qnn-htp"),
            Limit(
                ("Gemm",),
                "floats between",
                NO,
                "quantised factors, but a float result: these ran on the CPU",
                "run-qnn",
                "the float32 graph, which it computes in float16",
            ),
            Limit((), "bfloat16", LIMITED, "bfloat16 needs htp_bf16_enable and soc_model 88 or above", "qnn-list"),
        ),
        notes=(
            "default float32 exports of digits, DeiT-S and DINOv3-S compiled whole for SM8550 (HTP v73), no node "
            "on the CPU, in onnxruntime-qnn 2.7; run by us, without a device",
            "float graphs need soc_model and htp_arch; HTP v68 has no float16",
            _HALF,
            "int64 is cast to int32",
        ),
    ),
    "coreml": Target(
        title="Core ML, by ONNX Runtime's provider (ML Program)",
        outcome=ON_CPU,
        lists={
            "coreml-list": _names(
                """
                Add ArgMax AveragePool Cast Ceil Clip Concat Conv ConvTranspose Cos DepthToSpace Div Elu Erf Exp
                GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool GridSample GroupNormalization HardSigmoid Identity
                InstanceNormalization LayerNormalization LeakyRelu MatMul Max MaxPool Mul PRelu Pow Range Reciprocal
                ReduceMax ReduceMean ReduceSum Relu Reshape Resize Round Shape Sigmoid Sin Slice Softmax Softplus Split
                Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze com.microsoft:QuickGelu com.microsoft:FusedConv
                """
            ),
            "coreml-gather": _names("Gather"),
        },
        complete="coreml-list",
        floats={"FLOAT": "coreml-list"},
        limits=(
            Limit(("Gather",), "always", UNKNOWN, "not on the list, though the source has a builder", "coreml-gather"),
            Limit(("Gather",), "scalar ids", NO, "an id without an axis is refused", "coreml-gather"),
            Limit(("Gemm",), "computed B", NO, "its second factor must be constant", "coreml-list"),
            Limit(("ArgMax",), "always", LIMITED, "on the newest list, not on that of March 2026", "coreml-list"),
            Limit(
                ("Reciprocal",), "always", LIMITED, "Core ML adds an epsilon, 1e-4 where none is given", "coreml-list"
            ),
            Limit((), "rank above 5", NO, "at most 5 axes", "coreml-gather"),
        ),
        notes=("which nodes of Core ML the Neural Engine takes is not documented",),
    ),
    "openvino-npu": Target(
        title="Intel NPU, by OpenVINO",
        outcome=REFUSED,
        lists={"npu-topk": _names("TopK")},
        complete="",
        floats={"FLOAT": "npu-device", "FLOAT16": "npu-device"},
        limits=(
            Limit(("TopK",), "always", LIMITED, "needs a recent driver of the NPU", "npu-topk"),
            Limit((), "dynamic shape", NO, "shapes must be fixed", "npu-features"),
        ),
        notes=(
            "no list of its operators was found: on a machine with its driver, "
            "openvino.Core().query_model(model, 'NPU') says which nodes it takes",
            _HALF,
        ),
    ),
    "rknn": Target(
        title="Rockchip NPU, by RKNN-Toolkit2",
        outcome=REFUSED,
        lists={
            "rknn-list": _names(
                """
                Add ArgMax ArgMin AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv
                ConvTranspose Cos DepthToSpace DequantizeLinear Div Dropout Elu Equal Exp EyeLike Flatten Gather Gemm
                GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GRU HardSigmoid HardSwish Identity If
                InstanceNormalization LeakyRelu Less LessOrEqual LogSoftmax LpNormalization LRN LSTM MatMul Max MaxPool
                MaxRoiPool MaxUnpool Min Mul Pad Pow PRelu QuantizeLinear ReduceMax ReduceMean ReduceMin ReduceSum Relu
                Reshape Resize ReverseSequence RoiAlign ScatterND Shape Sigmoid Sin Size Slice Softmax Softplus
                SpaceToDepth Split Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze Where
                """
            ),
            "rknn-notes": _names("Gelu LayerNormalization ReduceL2"),
        },
        complete="rknn-list",
        floats={"FLOAT": "rknn-list"},
        limits=(
            Limit(
                ("TopK",),
                "always",
                NO,
                "on no list; fails, or answers wrongly, in 2.0",
                "rknn-topk",
            ),
            Limit(
                ("Gelu", "LayerNormalization", "ReduceL2"),
                "always",
                UNKNOWN,
                "the release notes of 1.6.0 name it, its list does not",
                "rknn-notes",
            ),
            Limit(
                ("Slice", "Softmax", "LogSoftmax", "Tile"),
                "first axis above 1",
                UNKNOWN,
                "listed for a batch of 1; the first axis here is longer",
                "rknn-list",
            ),
        ),
        notes=(
            "the list is that of 1.6.0, the newest that is public text; a later version may take more",
            _HALF,
        ),
    ),
    "webnn": Target(
        title="WebNN, by onnxruntime-web",
        outcome=ON_CPU,
        lists={
            "webnn-list": _names(
                """
                Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Conv ConvTranspose Cos
                CumSum DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand Flatten Floor GRU Gather
                GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
                HardSigmoid HardSwish Identity InstanceNormalization LRN LSTM LayerNormalization LeakyRelu Less
                LessOrEqual Log LpPool MatMul Max MaxPool Min Mul Neg Not Or PRelu Pad Pow QuantizeLinear Reciprocal
                ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
                ReduceSumSquare Relu Reshape Resize ScatterElements ScatterND Shape Sigmoid Sign
                SimplifiedLayerNormalization Sin Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Tan Tanh Tile
                Transpose Trilu Unsqueeze Where Xor com.microsoft:GroupQueryAttention com.microsoft:MatMulNBits
                com.microsoft:RotaryEmbedding com.microsoft:SkipSimplifiedLayerNormalization
                """
            )
        },
        complete="webnn-list",
        floats={"FLOAT": "webnn-list"},
        limits=(
            Limit(("Gemm",), "summand not 1-D", NO, "its summand C must have one axis", "webnn-list"),
            Limit(("ScatterElements", "ScatterND"), "reduction", NO, "taken without a reduction alone", "webnn-list"),
        ),
        notes=("what a browser's WebNN takes on a device differs: https://webmachinelearning.github.io/webnn-status",),
    ),
    "webgpu": Target(
        title="WebGPU, by onnxruntime-web",
        outcome=ON_CPU,
        lists={
            "webgpu-list": _names(
                """
                Abs Acos Acosh Add ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Clip
                Concat Conv ConvTranspose Cos Cosh Div Einsum Elu Equal Erf Exp Expand Flatten Floor Gather
                GatherElements Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual If InstanceNormalization
                LayerNormalization LeakyRelu Less LessOrEqual Log MatMul MaxPool Mul Neg Not Pad Pow Range Reciprocal
                ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
                ReduceSumSquare Relu Reshape Resize Shape Sigmoid Sin Sinh Slice Softmax Split Sqrt Squeeze Sub Tan Tanh
                ThresholdedRelu Tile Transpose Unsqueeze Where com.microsoft:BiasAdd com.microsoft:BiasSplitGelu
                com.microsoft:FusedConv com.microsoft:Gelu com.microsoft:SkipLayerNormalization
                """
            ),
            "run-webgpu": _names("Gelu TopK"),
        },
        complete="",  # the list is older than what runs
        floats={"FLOAT": "webgpu-list"},
        limits=(
            Limit(("Equal", "Gather"), "int64 data", NO, "its data are int64", "run-webgpu"),
            Limit((), "int64 data", UNKNOWN, "its data are int64: some such nodes ran on the CPU", "run-webgpu"),
        ),
    ),
    "nnapi": Target(
        title="Android's NNAPI, by ONNX Runtime's provider",
        outcome=ON_CPU,
        lists={
            "nnapi-list": _names(
                """
                Abs Add AveragePool Cast Clip Concat Conv DepthToSpace DequantizeLinear Div Elu Exp Flatten Floor Gather
                Gemm GlobalAveragePool GlobalMaxPool Identity Log MatMul Max MaxPool Min Mul Neg Pad Pow PRelu
                QLinearConv QLinearMatMul QuantizeLinear Relu Reshape Resize Sigmoid Sin Slice Softmax Sqrt Squeeze Sub
                Tanh Transpose Unsqueeze com.microsoft:QLinearAdd com.microsoft:QLinearAveragePool
                com.microsoft:QLinearSigmoid
                """
            )
        },
        complete="nnapi-list",
        floats={"FLOAT": "nnapi-list"},
        limits=(
            Limit(("Gather",), "computed ids other than int32", NO, "computed ids must be int32", "nnapi-list"),
            Limit(("Gemm",), "computed B, not transposed", NO, "a computed B must be transposed", "nnapi-list"),
        ),
    ),
}
