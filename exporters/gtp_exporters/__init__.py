"""From a model to files: traced, simplified, checked ONNX in an artifact directory.

Importing this package loads neither torch nor onnx; names resolve when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gtp_exporters.errors import ExportError, LimitError, OutputError, StaticCheckError
    from gtp_exporters.pipeline import Exported, Options, export
    from gtp_exporters.static_check import check_static

_HOMES = {
    "ExportError": "gtp_exporters.errors",
    "Exported": "gtp_exporters.pipeline",
    "LimitError": "gtp_exporters.errors",
    "Options": "gtp_exporters.pipeline",
    "OutputError": "gtp_exporters.errors",
    "StaticCheckError": "gtp_exporters.errors",
    "check_static": "gtp_exporters.static_check",
    "export": "gtp_exporters.pipeline",
}
__all__ = [
    "ExportError",
    "Exported",
    "LimitError",
    "Options",
    "OutputError",
    "StaticCheckError",
    "check_static",
    "export",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
