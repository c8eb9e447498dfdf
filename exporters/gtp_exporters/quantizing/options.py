"""How a graph is quantised: what the user can choose, and the form of int8 that each target wants.

In every form only products with constant weights are quantised: their weights by channel, symmetric, and their input
as a whole. Their output stays float: nothing is rounded twice, and the products of attention stand between floats.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from gtp_exporters.errors import LimitError
from gtp_runtime.cpus import ADDING_IN_16_BITS, saturates_int8
from gtp_runtime.images.class_folders import ORDERS

# x86 CPUs without VNNI add pairs of products uint8 x int8 in 16 bits, which saturate: 2 x 255 x 127 is above 32,767,
# and 2 x 255 x 64 is not (ONNX Runtime's reduce_range, NNCF's overflow_fix).
SAFE_BITS = 7


@dataclass(frozen=True)
class Form:
    """How a target wants Q/DQ nodes.

    Attributes:
        symmetric: inputs are int8 with zero point 0; otherwise uint8 with a zero point of their own.
        int32_bias: biases are int32 at the scale of the product; otherwise float.
        embedding: the patch embedding's convolution is quantised as well.
        weight_bits: of the codes of weights, 8 or 7.
    """

    symmetric: bool
    int32_bias: bool
    embedding: bool
    weight_bits: int = 8

    @property
    def largest(self) -> int:
        """The largest code of a weight."""
        return 64 if self.weight_bits == SAFE_BITS else 127


FORMS: dict[str, Form] = {
    # On x86, QGemm multiplies uint8 by int8 with an int32 bias in one kernel; with int8 inputs it is as slow as fp32.
    "onnxruntime": Form(symmetric=False, int32_bias=True, embedding=False),
    # TensorRT takes zero points of 0 alone, and biases in float.
    "tensorrt": Form(symmetric=True, int32_bias=False, embedding=False),
    # OpenVINO takes any; asymmetric is nearer to float32, and the embedding gains a little.
    "openvino": Form(symmetric=False, int32_bias=False, embedding=True),
}


AUTO = "auto"
CALIBRATIONS = ("minmax", "entropy", "percentile")


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantise.

    Attributes:
        target: "onnxruntime", "tensorrt" or "openvino"; each wants a form of its own.
        calib_data: a folder of images to measure ranges on (default: the recipe's own).
        calib_size: how many of them at most, spread over the folder.
        calibration: how ranges are measured: "minmax", "entropy" or "percentile".
        data: a folder of other images to judge on, one sub-folder a class where known (default: those of the parity
            pack, else a part of ``calib_data`` that is held out).
        max_drop: largest loss of top-1 against fp32, in points; the default is the precision's.
        keep_fp32: labels of layers that stay float32, or ("auto",): as few as pass the gate, the worst first.
        selection: quantise the products that decide which tokens leave as well.
        gate: fail where a limit is missed; what was measured is kept in any case.
        threads: CPU threads, 0 for all; what layers in float32 cost is timed with one.
        class_order: "timm" or "torchvision": the order of class folders to judge on (default: the manifest's, else
            timm's).
        weight_bits: 8, or 7 for x86 CPUs without VNNI, whose int8 products saturate (default: what this CPU needs, for
            targets that run on it).

    Raises:
        LimitError: a value that is not allowed.
    """

    target: str
    calib_data: Path | None = None
    calib_size: int = 512
    calibration: str = "minmax"
    data: Path | None = None
    max_drop: float | None = None
    keep_fp32: tuple[str, ...] = ()
    selection: bool = False
    gate: bool = True
    threads: int = 0
    class_order: str | None = None
    weight_bits: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("target", tuple(FORMS)), ("calibration", CALIBRATIONS)):
            if getattr(self, name) not in known:
                raise LimitError(f"{name}={getattr(self, name)!r} is unknown: choose one of {', '.join(known)}")
        if self.class_order not in (None, *ORDERS):
            raise LimitError(f"class_order={self.class_order!r} is unknown: choose one of {', '.join(ORDERS)}")
        if not self.gate and (self.max_drop is not None or self.automatic):
            raise LimitError("without a gate there is no limit to keep: leave out max_drop and keep_fp32=auto")
        if AUTO in self.keep_fp32 and len(self.keep_fp32) > 1:
            raise LimitError("keep_fp32 takes auto or names of layers, not both")
        if self.weight_bits not in (None, SAFE_BITS, 8):
            raise LimitError(f"weight_bits={self.weight_bits!r}: choose 7 or 8")
        if self.calib_size < 1:
            raise LimitError(f"calib_size={self.calib_size}: give the number of images to measure ranges on")

    @property
    def form(self) -> Form:
        """How int8 is written: as the target wants it, with these bits of weights."""
        needed = SAFE_BITS if self.target in ADDING_IN_16_BITS and saturates_int8() else 8
        return replace(FORMS[self.target], weight_bits=self.weight_bits or needed)

    @property
    def automatic(self) -> bool:
        """Whether the layers that stay float32 are found."""
        return self.keep_fp32 == (AUTO,)
