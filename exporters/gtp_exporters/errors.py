"""Errors of the exporter. Every message says what to do."""

from typing import Any


class ExportError(Exception):
    """Base of the errors that ``gtp_exporters`` raises on purpose."""


class LimitError(ExportError, ValueError):
    """Settings that the target runtime cannot build; found before any work is done."""


class StaticCheckError(ExportError):
    """A graph that is not static, or holds what the target's parser refuses."""


class SimplifyError(ExportError):
    """Our own graph rewriting changed the outputs of a graph: a bug in gtp-export."""


class OutputError(ExportError):
    """The artifact directory cannot be written."""


class EngineError(ExportError):
    """A graph that TensorRT cannot parse or build."""


class ParityFailedError(ExportError):
    """The outputs of the exported graphs differ from those of eager PyTorch.

    Attributes:
        proof: the measured values (``gtp_exporters.proof.Proof``); None if the eager model itself failed.
    """

    def __init__(self, message: str, proof: Any) -> None:
        super().__init__(message)
        self.proof = proof
