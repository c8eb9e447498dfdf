"""How to export: checked when it is said."""

from dataclasses import dataclass
from pathlib import Path

from gtp_exporters.errors import LimitError
from gtp_exporters.limits import TARGETS, check_opset
from gtp_exporters.precisions import find_precision
from gtp_models.heads import HEADS
from gtp_models.rivals import METHODS

INPUTS = ("float", "uint8")


@dataclass(frozen=True)
class Options:
    """How to export.

    Attributes:
        batch: images a run, at least 1.
        opset: ONNX opset, 18 to 23.
        simplify: run onnxsim.
        dense: write the unpatched twin beside the model.
        trace: give the graph the output ``propagated``.
        target: "tensorrt" (the strictest), "onnxruntime" or "openvino".
        data: a folder of images for the parity pack; else the recipe's own, else synthetic ones.
        precision: "fp32", "fp16" or "bf16", written into the graphs; inputs and outputs stay float32.
        schedule: spend ``budget`` by a schedule (see ``gtp_models.schedules``) in place of the settings' ``num_prop``.
        budget: MACs of the backbone, or a share of the dense model's; those of the settings' ``num_prop`` without.
        calib_data: a folder of images to calibrate thresholds on, where the settings ask for it and hold no
            calibration; the recipe's own without.
        method: "gtp", or a rival: "dense", "drop", "prune", "mean", "tome" (see ``gtp_models.apply_method``).
        input: "float", preprocessed (B, 3, H, W) float32, or "uint8", (B, H, W, 3) pixels as cameras have them,
            normalised inside the graph.
        head: "keep" (``logits``), "none" (pooled ``features``, without the classifier), or "auto": features where the
            model has no classifier, which the notes then say.
    """

    batch: int = 1
    opset: int = 20
    simplify: bool = True
    dense: bool = True
    trace: bool = True
    target: str = "tensorrt"
    data: Path | None = None
    precision: str = "fp32"
    input: str = "float"
    method: str = "gtp"
    schedule: str | None = None
    budget: float | None = None
    calib_data: Path | None = None
    head: str = "auto"

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise LimitError(f"batch {self.batch}: give at least 1")
        if self.target not in TARGETS:
            raise LimitError(f"no target is called {self.target!r}: choose one of {', '.join(TARGETS)}")
        if self.input not in INPUTS:
            raise LimitError(f"no input is called {self.input!r}: choose one of {', '.join(INPUTS)}")
        if self.method not in METHODS:
            raise LimitError(f"no method is called {self.method!r}: choose one of {', '.join(METHODS)}")
        if self.head not in HEADS:
            raise LimitError(f"no head is called {self.head!r}: choose one of {', '.join(HEADS)}")
        if self.budget is not None and (not self.schedule or self.budget <= 0):
            raise LimitError(f"a budget of {self.budget} MACs: give more than 0, and a schedule to spend it (even)")
        find_precision(self.precision)
        check_opset(self.opset)
