"""bf16: brain floating point, 8 significant bits, the range of fp32."""

from typing import Any

from gtp_exporters import limits
from gtp_exporters.precisions import has_weights

TARGETS = limits.TARGETS
CALIBRATED = False


def matches(model: Any) -> bool:
    """Whether a graph is written in it."""
    return has_weights(model, "BFLOAT16")


def convert(model: Any) -> Any:
    """Return a copy that computes in bf16, except for what decides which tokens leave."""
    import onnx_ir as ir

    from gtp_exporters.lowering import lower

    return lower(model, ir.DataType.BFLOAT16)
