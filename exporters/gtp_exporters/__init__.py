"""From a model to files: traced, simplified, checked ONNX in an artifact directory.

Importing this package loads neither torch nor onnx; names resolve when they are first used.
"""

from typing import TYPE_CHECKING

from gtp_models._lazy import lazy  # importing gtp_models puts the hook in place that mends torchvision

if TYPE_CHECKING:
    from gtp_exporters.errors import (
        EngineError,
        ExportError,
        LimitError,
        OutputError,
        ParityFailedError,
        StaticCheckError,
    )
    from gtp_exporters.options import ExportOptions
    from gtp_exporters.pipeline import Exported, export
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
    "ExportOptions": "gtp_exporters.options",
    "OutputError": "gtp_exporters.errors",
    "ParityFailedError": "gtp_exporters.errors",
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
    "ExportOptions",
    "Exported",
    "LimitError",
    "OutputError",
    "ParityFailedError",
    "StaticCheckError",
    "build_engine",
    "check_static",
    "export",
]

__getattr__, __dir__ = lazy(__name__, _HOMES)
