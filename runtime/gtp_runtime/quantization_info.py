"""What the manifest says of how a graph was quantised."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class QuantizationInfo:
    """How a graph was quantised.

    Attributes:
        target: the runtime that its form is for: "onnxruntime", "tensorrt" or "openvino".
        activations: "uint8" (asymmetric) or "int8" (symmetric, zero point 0).
        calibration: how ranges were measured: "minmax", "entropy" or "percentile".
        images: how many they were measured on.
        products: how many products are int8.
        kept_fp32: the layers that stay float32.
        selection: whether the products that decide which tokens leave are int8 as well.
    """

    target: str
    activations: str
    calibration: str
    images: int
    products: int
    kept_fp32: list[str] = field(default_factory=list)
    selection: bool = False
