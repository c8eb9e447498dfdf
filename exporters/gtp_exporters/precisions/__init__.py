"""The precisions that a graph can be written in: one file each, which is all that adding one takes.

A precision is a module ``gtp_exporters/precisions/NAME.py`` with

- ``TARGETS``: the targets whose runtimes run it;
- ``CALIBRATED``: whether it is made by ``quantize``, which measures ranges on images, and not by ``convert``;
- ``matches(model)``: whether a graph is written in it;
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

    TARGETS: tuple[str, ...]
    CALIBRATED: bool

    def matches(self, model: Any) -> bool:
        """Whether an ``onnx_ir.Model`` is written in this precision."""
        ...

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


def converted_names(target: str) -> tuple[str, ...]:
    """Return the names of the precisions that a graph for a target is converted to without images, float32 first."""
    found = {name: find_precision(name) for name in precision_names()}
    return tuple(name for name, entry in found.items() if not entry.CALIBRATED and target in entry.TARGETS)


def find_precision(name: str) -> Precision:
    """Return the precision of a name.

    Raises:
        LimitError: there is none.
    """
    if name not in precision_names():
        raise LimitError(f"precision={name!r} is unknown: choose one of {', '.join(precision_names())}")
    module: Any = import_module(f"{__name__}.{name}")
    return module


def check_target(name: str, target: str) -> None:
    """Check that a target's runtime runs a precision.

    Raises:
        LimitError: it does not, or there is no such precision.
    """
    known = find_precision(name).TARGETS
    if target not in known:
        raise LimitError(f"{target} does not run {name}, {' and '.join(known)} does: export with --target {known[0]}")


def has_weights(model: Any, kind: str) -> bool:
    """Whether an ``onnx_ir.Model`` has weights of a data type, by ONNX's name of it ("FLOAT16")."""
    return any(value.dtype is not None and value.dtype.name == kind for value in model.graph.initializers.values())
