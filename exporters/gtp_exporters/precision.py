"""The precision that a graph is written in, and how to write another into it."""

import onnx_ir as ir

from gtp_exporters.errors import LimitError
from gtp_exporters.precisions import find_precision, precision_names


def to_precision(model: ir.Model, precision: str) -> ir.Model:
    """Return a copy of a float32 graph in another precision, with inferred shapes.

    Args:
        model: static, with inferred shapes, weights as initializers.
        precision: one of ``precision_names()``; "fp32" is a copy as it is.

    Raises:
        LimitError: an unknown precision, a graph that is not float32, or weights that the precision cannot hold.
    """
    wanted, present = find_precision(precision), precision_of(model)
    if present != "fp32":
        raise LimitError(f"the graph is {present} and cannot be converted to {precision}: use an fp32 export")
    return wanted.convert(model)


def precision_of(model: ir.Model) -> str:
    """Return the precision that a graph is written in."""
    lower = (name for name in precision_names() if name != "fp32")
    return next((name for name in lower if find_precision(name).matches(model)), "fp32")
