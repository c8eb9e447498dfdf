"""What a command's exit code says, and which error leads to which."""

from gtp_export.extras import ONNX, extra_of
from gtp_exporters.errors import ExportError, LimitError, MissingPackageError, OutputError
from gtp_models.errors import (
    ConfigError,
    ModelsError,
    UnknownModelError,
    UnsupportedModelError,
    WeightsError,
    WeightsUnavailableError,
)
from gtp_runtime.errors import (
    BackendMissingError,
    DeviceError,
    GTPRuntimeError,
    InputError,
    NoClassesError,
    RandomWeightsError,
)

DONE = 0
FAILED = 1
USAGE = 2
GATE_FAILED = 3
MISSING = 4
BUDGET_MISSED = 5

_CODES: tuple[tuple[tuple[type[Exception], ...], int], ...] = (
    (
        (ConfigError, LimitError, UnknownModelError, UnsupportedModelError, WeightsError, InputError, NoClassesError),
        USAGE,
    ),
    ((MissingPackageError, WeightsUnavailableError, BackendMissingError, DeviceError, RandomWeightsError), MISSING),
    ((OutputError, ExportError, ModelsError, GTPRuntimeError), FAILED),
)
KNOWN = tuple(kind for kinds, _ in _CODES for kind in kinds)


def code_of(error: Exception) -> int:
    """Return the exit code of one of the ``KNOWN`` errors."""
    return next(code for kinds, code in _CODES if isinstance(error, kinds))


def missing_extra(error: ModuleNotFoundError) -> str:
    """Return the line that says what is missing and the pip command, or "" for a module that is not ours to name."""
    package = (error.name or "").partition(".")[0]
    if package in ONNX:  # a device needs them without the rest of the export extra
        return f"{ONNX[package]} is not installed: pip install {' '.join(ONNX.values())}"
    extra = extra_of(package)
    return f"{package} is not installed: {extra.command}" if extra else ""
