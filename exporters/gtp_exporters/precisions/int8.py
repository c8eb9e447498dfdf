"""int8: products with constant weights in 8-bit integers, all else float32. Its ranges are measured on images."""

from typing import Any

from gtp_exporters import limits
from gtp_exporters.errors import LimitError
from gtp_exporters.precisions import has_weights

TARGETS = limits.TARGETS
CALIBRATED = True


def matches(model: Any) -> bool:
    """Whether a graph is written in it."""
    return has_weights(model, "INT8")


def convert(model: Any) -> Any:  # noqa: ARG001 - the signature of a precision
    """Raise ``LimitError``: a graph alone does not tell the ranges of its values."""
    raise LimitError("int8 is not made from a graph alone: gtp-export quantize DIR measures ranges on images")
