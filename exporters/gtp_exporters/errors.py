"""Errors of the exporter. Every message says what to do."""

from gtp_runtime.errors import MISSING, USAGE, GTPError


class ExportError(GTPError):
    """Base of the errors that ``gtp_exporters`` raises on purpose."""


class LimitError(ExportError, ValueError):
    """Settings that the target runtime cannot build; found before any work is done."""

    exit_code = USAGE


class StaticCheckError(ExportError):
    """A graph that is not static, or holds what the target's parser refuses."""


class SimplifyError(ExportError):
    """Our own graph rewriting changed the outputs of a graph: a bug in gtp-export."""


class EngineError(ExportError):
    """A graph that TensorRT cannot parse or build."""


class ConversionError(ExportError):
    """A graph that a converter cannot convert."""


class MissingPackageError(ExportError):
    """A package of an extra that is not installed."""

    exit_code = MISSING
