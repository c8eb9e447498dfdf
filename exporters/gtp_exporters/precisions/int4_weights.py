"""int4_weights: weights of products in 4 bits, in blocks of 32, all else float32. Needs no calibration images."""

from typing import Any

TARGETS = ("onnxruntime",)
CALIBRATED = False
BITS, BLOCK = 4, 32


def matches(model: Any) -> bool:
    """Whether a graph is written in it."""
    from gtp_exporters.weight_only import has_small_weights

    return has_small_weights(model, BITS)


def convert(model: Any) -> Any:
    """Return a copy with small weights."""
    from gtp_exporters.weight_only import with_small_weights

    return with_small_weights(model, BITS, BLOCK)
