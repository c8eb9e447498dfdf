"""fp16: half precision, 11 significant bits, values up to 65,504."""

from typing import Any

from gtp_exporters import limits
from gtp_exporters.precisions import has_weights

TARGETS = limits.TARGETS
CALIBRATED = False


def matches(model: Any) -> bool:
    """Whether a graph is written in it."""
    return has_weights(model, "FLOAT16")


def convert(model: Any) -> Any:
    """Return a copy that computes in fp16, except for what decides which tokens leave."""
    import onnx_ir as ir

    from gtp_exporters.lowering import lower

    return lower(model, ir.DataType.FLOAT16)
