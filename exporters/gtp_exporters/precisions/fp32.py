"""fp32: single precision, as the model was trained."""

from typing import Any

from gtp_exporters import limits
from gtp_exporters.precisions import has_weights

TARGETS = limits.TARGETS
CALIBRATED = False


def matches(model: Any) -> bool:
    """Whether a graph is written in it."""
    return has_weights(model, "FLOAT")


def convert(model: Any) -> Any:
    """Return a copy."""
    return model.clone()
