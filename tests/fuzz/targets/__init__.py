"""What is fuzzed: one module a target, with a ``TARGET``.

A target takes bytes as a file from elsewhere, and may raise nothing but our typed errors. To add one, write a module.
"""

import importlib
import pkgutil

from targets.base import Target, attempt

__all__ = ["TARGETS", "Target", "attempt"]

TARGETS: dict[str, Target] = {
    module.name: importlib.import_module(f"{__name__}.{module.name}").TARGET
    for module in pkgutil.iter_modules(__path__)
    if module.name != "base"
}
