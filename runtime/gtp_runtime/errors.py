"""Errors of the runtime and their exit codes. Every message says what is wrong and what to do."""

import errno
from typing import Any, ClassVar

DONE = 0
FAILED = 1
USAGE = 2
GATE_FAILED = 3
MISSING = 4
BUDGET_MISSED = 5


class GTPError(Exception):
    """Base of all errors that the packages of gtp-export raise on purpose.

    Attributes:
        exit_code: the exit code of a command that such an error ends; each class states its own, or inherits it.
    """

    exit_code: ClassVar[int] = FAILED


class GTPRuntimeError(GTPError):
    """Base of the errors that ``gtp_runtime`` raises on purpose."""


class ManifestError(GTPRuntimeError):
    """An artifact that is missing, damaged, or not what its manifest says."""


class OutputError(GTPRuntimeError):
    """A directory or file that cannot be written; what was there before is unchanged."""


class BackendMissingError(GTPRuntimeError):
    """The engine, provider or device that would run a file is not installed here."""

    exit_code = MISSING


class InputError(GTPRuntimeError, ValueError):
    """An argument of the wrong type or shape, or out of range."""

    exit_code = USAGE


class AnswerError(GTPRuntimeError):
    """A model has non-finite outputs, which are meaningless."""


class DeadlineError(GTPRuntimeError, TimeoutError):
    """A call was stopped because it took longer than its ``timeout``."""


class SelfTestError(GTPRuntimeError):
    """A file does not answer as its parity pack says.

    Attributes:
        parity: the report (``gtp_runtime.Parity``), with the gates that failed.
    """

    exit_code = GATE_FAILED

    def __init__(self, message: str, parity: Any) -> None:
        super().__init__(message)
        self.parity = parity


class BudgetMissedError(GTPRuntimeError):
    """A file is slower on this device than it may be."""

    exit_code = BUDGET_MISSED


class InstallError(GTPRuntimeError):
    """A directory that cannot be installed, or gone back from; what was installed is unchanged."""


class NoClassesError(GTPRuntimeError):
    """Classes were requested from a model that outputs features."""

    exit_code = USAGE


class ImageError(GTPRuntimeError, ValueError):
    """An image, or a folder of images, that cannot be read."""


class RandomWeightsError(GTPRuntimeError):
    """A prediction was requested from a model with random weights."""

    exit_code = MISSING


class RandomWeightsWarning(UserWarning):
    """A model with random weights was loaded: its outputs are meaningless."""


class DeviceError(GTPRuntimeError):
    """CUDA or TensorRT reports an error on this device."""

    exit_code = MISSING


class EngineMismatchError(GTPRuntimeError):
    """An engine was built for another TensorRT or another GPU than this machine has."""


class FleetError(GTPRuntimeError):
    """A cluster that cannot be joined, or that has no node left that can do what is asked."""

    exit_code = MISSING


class KeyFileError(GTPRuntimeError):
    """A key file that cannot be read or written, or that holds no Ed25519 key."""


class SignatureError(GTPRuntimeError):
    """An artifact directory that no trusted key signed, or that was changed since.

    Attributes:
        kind: what was found: "unsigned", "key" (another key), "changed", "added", "missing" (a file), "replayed" (an
            older version), "memory" (the version that is remembered cannot be read or kept).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its class name if the text is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def system_error(error: OSError) -> str:
    """Return an error of the operating system as one line that says what to do."""
    reason = error.strerror or first_line(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{reason}: make room on the disk of the output and on that of temporary files (TMPDIR)"
    if error.filename is None:
        return f"{reason}: check the files, the disks and the devices of this machine (-v shows where)"
    return f"{error.filename}: {reason}: check that this user may read and write it"
