"""From a model to files: traced, simplified, checked ONNX in an artifact directory.

Importing this package loads neither torch nor onnx; names resolve when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gtp_models as _gtp_models  # noqa: F401 - puts the hook in place that mends torchvision

if TYPE_CHECKING:
    from gtp_exporters.errors import EngineError, ExportError, LimitError, OutputError, StaticCheckError
    from gtp_exporters.pipeline import Exported, Options, export
    from gtp_exporters.static_check import check_static
    from gtp_exporters.tensorrt.building import EngineOptions
    from gtp_exporters.tensorrt.engine import Engine, build_engine

_HOMES = {
    "Engine": "gtp_exporters.tensorrt.engine",
    "EngineError": "gtp_exporters.errors",
    "EngineOptions": "gtp_exporters.tensorrt.building",
    "ExportError": "gtp_exporters.errors",
    "Exported": "gtp_exporters.pipeline",
    "LimitError": "gtp_exporters.errors",
    "Options": "gtp_exporters.pipeline",
    "OutputError": "gtp_exporters.errors",
    "StaticCheckError": "gtp_exporters.errors",
    "build_engine": "gtp_exporters.tensorrt.engine",
    "check_static": "gtp_exporters.static_check",
    "export": "gtp_exporters.pipeline",
}
__all__ = [
    "Engine",
    "EngineError",
    "EngineOptions",
    "ExportError",
    "Exported",
    "LimitError",
    "Options",
    "OutputError",
    "StaticCheckError",
    "build_engine",
    "check_static",
    "export",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
