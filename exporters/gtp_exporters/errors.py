"""Errors of the exporter. Every message says what to do."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gtp_runtime.errors import GATE_FAILED, MISSING, USAGE, GTPError

if TYPE_CHECKING:
    from gtp_exporters.layer_errors import LayerError
    from gtp_exporters.proof import Proof
    from gtp_exporters.quantizing.gate import GateReport
    from gtp_exporters.quantizing.sensitivity import LayerLoss


class ExportError(GTPError):
    """Base of the errors that ``gtp_exporters`` raises on purpose."""


class LimitError(ExportError, ValueError):
    """Settings that the target runtime cannot build; found before any work is done."""

    exit_code = USAGE


class StaticCheckError(ExportError):
    """A graph that is not static, or holds what the target's parser refuses."""


class SimplifyError(ExportError):
    """Our own graph rewriting changed the outputs of a graph: a bug in gtp-export."""


class OutputError(ExportError):
    """The artifact directory cannot be written."""


class EngineError(ExportError):
    """A graph that TensorRT cannot parse or build."""


class MissingPackageError(ExportError):
    """A package of an extra that is not installed."""

    exit_code = MISSING


class ParityFailedError(ExportError):
    """The outputs of the exported graphs differ from those of eager PyTorch.

    Attributes:
        proof: the measured values; of a model whose own answers are not finite, its parity with itself.
        errors: how far each layer is from float32, the furthest first; none for float32 and bf16.
    """

    exit_code = GATE_FAILED

    def __init__(self, message: str, proof: "Proof", errors: "Sequence[LayerError]" = ()) -> None:
        super().__init__(message)
        self.proof = proof
        self.errors = list(errors)


class QuantizationFailedError(ExportError):
    """The outputs of quantised graphs differ too much from those of the float32 graphs.

    Attributes:
        reports: the measured values, one report per file.
        losses: divergence of each layer when it alone is quantised, the largest first.
    """

    exit_code = GATE_FAILED

    def __init__(self, message: str, reports: "Sequence[GateReport]", losses: "Sequence[LayerLoss]") -> None:
        super().__init__(message)
        self.reports, self.losses = reports, losses
