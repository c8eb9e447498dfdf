"""Public names of a package that are imported on first use (PEP 562), so that importing the package is cheap.

The package's ``__init__.pyi`` is the one list of its names: type checkers read it, and so does ``lazy``. To add a name,
add it there: ``from gtp_models.plan import Plan as Plan``.
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return a package's ``__getattr__``, ``__dir__`` and ``__all__``.

    Args:
        package: its ``__name__``.
        file: its ``__file__``, beside which its stub lies.
    """
    homes = _homes(Path(file).with_suffix(".pyi"))

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *homes}), sorted(homes)


def _homes(stub: Path) -> dict[str, str]:
    """Return for each name of a stub the module that it comes from."""
    return {
        entry.name: node.module
        for node in ast.parse(stub.read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.module
        for entry in node.names
    }
