"""The exit codes of commands, and the code for each kind of error."""

import errno

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
from gtp_runtime.errors import (
    BackendMissingError,
    DeviceError,
    FleetError,
    GTPRuntimeError,
    InputError,
    NoClassesError,
    RandomWeightsError,
    first_line,
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
    (
        (
            MissingPackageError,
            WeightsUnavailableError,
            BackendMissingError,
            DeviceError,
            FleetError,
            RandomWeightsError,
        ),
        MISSING,
    ),
    ((QuantizationFailedError,), GATE_FAILED),
    ((OutputError, ExportError, ModelsError, GTPRuntimeError), FAILED),
)
KNOWN = tuple(kind for kinds, _ in _CODES for kind in kinds)


def code_of(error: Exception) -> int:
    """Return the exit code of one of the ``KNOWN`` errors."""
    return next(code for kinds, code in _CODES if isinstance(error, kinds))


def missing_extra(error: ModuleNotFoundError) -> str:
    """Return the missing package and the pip command that installs it, or "" for a module that no extra installs."""
    package = (error.name or "").partition(".")[0]
    if package in ONNX:  # a device needs them without the rest of the export extra
        return f"{ONNX[package]} is not installed: pip install {' '.join(ONNX.values())}"
    extra = extra_of(package)
    return f"{package} is not installed: {extra.command}" if extra else ""


def system_error(error: OSError) -> str:
    """Return an error of the operating system as one line that says what to do."""
    reason = error.strerror or first_line(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{reason}: make room on the disk of the output and on that of temporary files (TMPDIR)"
    if error.filename is None:
        return f"{reason}: check the files, the disks and the devices of this machine (-v shows where)"
    return f"{error.filename}: {reason}: check that this user may read and write it"
