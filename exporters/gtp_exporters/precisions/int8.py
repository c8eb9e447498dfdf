"""int8: products with constant weights in 8-bit integers, all else float32. Its ranges are measured on images."""

from typing import Any

from gtp_exporters.errors import LimitError

WEIGHTS = "INT8"
CALIBRATED = True


def convert(model: Any) -> Any:  # noqa: ARG001 - the signature of a precision
    """Raise ``LimitError``: a graph alone does not tell the ranges of its values."""
    raise LimitError("int8 is not made from a graph alone: gtp-export quantize DIR measures ranges on images")
