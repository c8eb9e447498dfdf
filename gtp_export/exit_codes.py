"""The exit codes of commands, and the code for each kind of error."""

from gtp_export.extras import ONNX, extra_of
from gtp_exporters.errors import (
    ExportError,
    LimitError,
    MissingPackageError,
    OutputError,
    QuantizationFailedError,
)
from gtp_models.errors import (
    ConfigError,
    ModelsError,
    UnknownModelError,
    UnsupportedModelError,
    WeightsError,
    WeightsUnavailableError,
)
from gtp_runtime import exit_codes as runtime
from gtp_runtime.exit_codes import (
    BUDGET_MISSED,
    DONE,
    FAILED,
    GATE_FAILED,
    MISSING,
    RUNTIME_CODES,
    USAGE,
    Codes,
    system_error,
)

__all__ = [
    "BUDGET_MISSED",
    "DONE",
    "FAILED",
    "GATE_FAILED",
    "KNOWN",
    "MISSING",
    "USAGE",
    "code_of",
    "missing_extra",
    "system_error",
]

_CODES: Codes = (
    ((ConfigError, LimitError, UnknownModelError, UnsupportedModelError, WeightsError), USAGE),
    ((MissingPackageError, WeightsUnavailableError), MISSING),
    ((QuantizationFailedError,), GATE_FAILED),
    ((OutputError, ExportError, ModelsError), FAILED),
    *RUNTIME_CODES,
)
KNOWN = tuple(kind for kinds, _ in _CODES for kind in kinds)


def code_of(error: Exception) -> int:
    """Return the exit code of one of the ``KNOWN`` errors."""
    return runtime.code_of(error, _CODES)


def missing_extra(error: ModuleNotFoundError) -> str:
    """Return the missing package and the pip command that installs it, or "" for a module that no extra installs."""
    package = (error.name or "").partition(".")[0]
    if package in ONNX:  # a device needs them without the rest of the export extra
        return f"{ONNX[package]} is not installed: pip install {' '.join(ONNX.values())}"
    extra = extra_of(package)
    return f"{package} is not installed: {extra.command}" if extra else ""
