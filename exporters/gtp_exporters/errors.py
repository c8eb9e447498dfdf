"""What can go wrong on the way from a model to files. Every message says what to do."""

from typing import Any


class ExportError(Exception):
    """Base of the errors that ``gtp_exporters`` raises on purpose."""


class LimitError(ExportError, ValueError):
    """Settings that the target runtime cannot build; found before any work is done."""


class StaticCheckError(ExportError):
    """A graph that is not static, or holds what the target's parser refuses."""


class SimplifyError(ExportError):
    """Our own rewriting changed what a graph answers: a defect of gtp-export."""


class OutputError(ExportError):
    """A place where the artifact directory cannot be written."""


class EngineError(ExportError):
    """A graph that TensorRT cannot parse or build."""


class MissingPackageError(ExportError):
    """A package of an extra that is not installed."""


class ParityFailedError(ExportError):
    """An export whose graphs do not answer as eager PyTorch does.

    Attributes:
        proof: what was measured (``gtp_exporters.proof.Proof``); None where the eager model itself failed.
    """

    def __init__(self, message: str, proof: Any) -> None:
        super().__init__(message)
        self.proof = proof
