"""How a graph is quantised: what the user can choose."""

from dataclasses import dataclass
from pathlib import Path

from gtp_exporters.errors import LimitError
from gtp_exporters.quantizing.forms import FORMS

AUTO = "auto"
CALIBRATIONS = ("minmax", "entropy", "percentile")


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantise.

    Attributes:
        target: "onnxruntime", "tensorrt" or "openvino"; each wants a form of its own.
        calib_data: a folder of images to measure ranges on (default: the recipe's own).
        calib_size: how many of them at most, spread over the folder.
        calibration: how ranges are measured: "minmax", "entropy" or "percentile".
        data: a folder of other images to judge on, one sub-folder a class where known (default: those of the parity
            pack, else a part of ``calib_data`` that is held out).
        max_drop: largest loss of top-1 against fp32, in points; the default is the precision's.
        keep_fp32: labels of layers that stay float32, or ("auto",): as few as pass the gate, the worst first.
        selection: quantise the products that decide which tokens leave as well.
        gate: fail where a limit is missed; what was measured is kept in any case.
        threads: CPU threads, 0 for all.

    Raises:
        LimitError: a value that is not allowed.
    """

    target: str
    calib_data: Path | None = None
    calib_size: int = 512
    calibration: str = "minmax"
    data: Path | None = None
    max_drop: float | None = None
    keep_fp32: tuple[str, ...] = ()
    selection: bool = False
    gate: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        for name, known in (("target", tuple(FORMS)), ("calibration", CALIBRATIONS)):
            if getattr(self, name) not in known:
                raise LimitError(f"{name}={getattr(self, name)!r} is unknown: choose one of {', '.join(known)}")
        if not self.gate and (self.max_drop is not None or self.automatic):
            raise LimitError("without a gate there is no limit to keep: leave out max_drop and keep_fp32=auto")
        if AUTO in self.keep_fp32 and len(self.keep_fp32) > 1:
            raise LimitError("keep_fp32 takes auto or names of layers, not both")
        if self.calib_size < 1:
            raise LimitError(f"calib_size={self.calib_size}: give the number of images to measure ranges on")

    @property
    def automatic(self) -> bool:
        """Whether the layers that stay float32 are found."""
        return self.keep_fp32 == (AUTO,)
