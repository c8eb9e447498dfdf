"""bf16: brain floating point, 8 significant bits, the range of fp32."""

from typing import Any

WEIGHTS = "BFLOAT16"
CALIBRATED = False


def convert(model: Any) -> Any:
    """Return a copy that computes in bf16, except for what decides which tokens leave."""
    import onnx_ir as ir

    from gtp_exporters.lowering import lower

    return lower(model, ir.DataType.BFLOAT16)
