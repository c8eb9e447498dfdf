"""The precisions that a graph can be written in: one file each, which is all that adding one takes.

A precision is a module ``gtp_exporters/precisions/NAME.py`` with

- ``WEIGHTS``: ONNX's name of the data type that tells the precision by a graph's weights ("FLOAT16");
- ``CALIBRATED``: whether it is made by ``quantize``, which measures ranges on images, and not by ``convert``;
- ``convert(model)``: returns a copy of a float32 graph in this precision, with inferred shapes.

It imports onnx only within ``convert``, so that names can be listed where onnx is not installed.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Protocol

from gtp_exporters.errors import LimitError


class Precision(Protocol):
    """What the module of a precision holds."""

    WEIGHTS: str
    CALIBRATED: bool

    def convert(self, model: Any) -> Any:
        """Return a copy of a float32 ``onnx_ir.Model`` in this precision, with inferred shapes.

        Raises:
            LimitError: weights that the precision cannot hold, or a precision that is calibrated.
        """
        ...


@cache
def precision_names() -> tuple[str, ...]:
    """Return the names of all precisions, float32 first; loads none of them."""
    found = sorted(module.name for module in iter_modules(__path__))
    return ("fp32", *(name for name in found if name != "fp32"))


def converted_names() -> tuple[str, ...]:
    """Return the names of the precisions that a graph is converted to without images, float32 first."""
    return tuple(name for name in precision_names() if not find_precision(name).CALIBRATED)


def find_precision(name: str) -> Precision:
    """Return the precision of a name.

    Raises:
        LimitError: there is none.
    """
    if name not in precision_names():
        raise LimitError(f"precision={name!r} is unknown: choose one of {', '.join(precision_names())}")
    module: Any = import_module(f"{__name__}.{name}")
    return module
