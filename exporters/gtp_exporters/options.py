"""Options of an export, checked when they are made; and the limits of the runtimes, checked before any work is done.

Sources: ONNX-TensorRT's docs/operators.md; builds with TensorRT-RTX.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gtp_exporters.errors import LimitError
from gtp_models.heads import DENSE, OUTPUTS
from gtp_models.methods.settings import is_int, is_number
from gtp_runtime.manifest import BatchRange
from gtp_runtime.precisions import PRECISIONS, TARGETS, WITHOUT_SORT, Precision

if TYPE_CHECKING:
    from gtp_models.plan import Plan

INPUTS = ("float", "uint8")
FORMS = ("sort", "ranks", "ranks-arithmetic")  # how tokens are chosen and moved; the first is the usual one
MAX_TOPK = 3840  # TensorRT's: a larger k parses, then fails to build
OPSETS = range(18, 24)


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        batch: images per run, at least 1; or a range, ``BatchRange(1, 16)``: one graph whose first axis is free.
        opset: ONNX opset, 18 to 23.
        simplify: run onnxsim.
        dense: write the dense baseline as well.
        trace: add the outputs ``propagated`` and, for methods that merge, ``received_by``.
        target: the runtime whose limits are checked: "onnxruntime", "openvino" or "tensorrt" (the strictest: give it
            where engines are built); or one of ``WITHOUT_SORT``, which runs elsewhere.
        data: a folder of images for the reference (default: the recipe's own, else synthetic ones).
        precision: a name of ``gtp_runtime.precisions.PRECISIONS``, written into the graphs; inputs and outputs stay
            float32. "int8" adds int8 graphs for ``target`` to the float32 ones.
        input: "float", preprocessed (B, 3, H, W) float32, or "uint8", (B, H, W, 3) pixels, normalised inside the graph.
        calib_data: a folder of images to calibrate on (default: the recipe's own): thresholds and fixed moves,
            for settings that need a calibration and have none, ranges for int8, and a fitted schedule.
        output: "logits", "features" (pooled, without the classifier), "patches" (a vector for each patch), "map" (the
            same on the grid, (B, dim, rows, columns)), or "auto": logits, and features if the model has no classifier;
            the notes then say so.
        layers: for patches and maps the layers to give, ascending, each behind the final norm; empty for the last.
        latency: budget of a fitted schedule: time as a share of the dense model's, in (0, 1), measured on ``target``.
        fit_seconds: time after which a fitted schedule is not improved further; None for no limit.
        form: how tokens are chosen and moved: "sort", by TopK and Gather; "ranks", by comparing all pairs and products
            with 0 and 1; "ranks-arithmetic", the same without comparisons; None for what ``target`` takes.

    Raises:
        LimitError: a value that is not allowed.
    """

    batch: int | BatchRange = 1
    opset: int = 20
    simplify: bool = True
    dense: bool = True
    trace: bool = True
    target: str = "onnxruntime"
    data: Path | None = None
    precision: str = "fp32"
    input: str = "float"
    calib_data: Path | None = None
    output: str = "auto"
    layers: tuple[int, ...] = ()
    latency: float | None = None
    fit_seconds: float | None = None
    form: str | None = None

    def __post_init__(self) -> None:
        self._check_batch()
        choices = {"target": (*TARGETS, *WITHOUT_SORT), "form": (None, *FORMS), "input": INPUTS, "output": OUTPUTS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                choices_of = ", ".join(filter(None, known))
                raise LimitError(f"{name}={getattr(self, name)!r} is unknown: choose one of {choices_of}")
        if self.form == FORMS[0] and self.target in WITHOUT_SORT:
            raise LimitError(f"{self.target} cannot sort: leave --form out, or give --form {self.chosen_form}")
        self._check_layers()
        if self.latency is not None and not (is_number(self.latency) and 0 < self.latency < 1):
            raise LimitError(
                f"latency={self.latency!r}: give a share of the dense model's time between 0 and 1, like 0.75"
            )
        if self.fit_seconds is not None and not (is_number(self.fit_seconds) and 0 < self.fit_seconds < math.inf):
            raise LimitError(f"fit_seconds={self.fit_seconds!r}: give a finite time above 0")
        check_precision(self.precision, self.target)
        check_opset(self.opset)

    def _check_batch(self) -> None:
        if not isinstance(self.batch, BatchRange):
            if not is_int(self.batch) or self.batch < 1:
                raise LimitError(f"batch={self.batch!r}: give a whole number of at least 1, or a range like 1..16")
            return
        fixed = {
            f"--target {self.target}": self.target in WITHOUT_SORT,
            f"--precision {self.precision}": self.precision in PRECISIONS and self.calibrated,
            "--latency": self.latency is not None,
        }
        if self.batch.min == self.batch.max:
            raise LimitError(f"a range of one number: give --batch {self.batch.max}")
        if wanting := [what for what, wants in fixed.items() if wants]:
            raise LimitError(
                f"{wanting[0]} needs one number of images, not {self.batch}: give --batch {self.batch.min}"
            )

    def _check_layers(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        ascending = all(is_int(layer) and layer >= 0 for layer in self.layers) and sorted({*self.layers}) == [
            *self.layers
        ]
        if not ascending:
            raise LimitError(f"layers={self.layers!r}: give whole numbers from 0, ascending, each once")
        if self.layers and self.output not in DENSE:
            raise LimitError(f"layers are of {' and '.join(DENSE)}: give --output map, or leave --layers out")

    @property
    def batch_range(self) -> BatchRange | None:
        """The range of images per run; None for one number."""
        return self.batch if isinstance(self.batch, BatchRange) else None

    @property
    def fits(self) -> bool:
        """Whether an option asks for a fitted schedule."""
        return self.latency is not None or self.fit_seconds is not None

    @property
    def chosen_form(self) -> str:
        """The form of the graphs: one of ``FORMS``."""
        return self.form if self.form in FORMS[1:] else WITHOUT_SORT.get(self.target, FORMS[0])

    @property
    def calibrated(self) -> bool:
        """Whether graphs are quantised on images after the export."""
        return PRECISIONS[self.precision].calibrated

    @property
    def converted(self) -> str:
        """The precision that the export itself writes: a calibrated one starts from float32."""
        return "fp32" if self.calibrated else self.precision


def check_limits(plan: "Plan", target: str) -> None:
    """Check that the target can build the graphs, before anything is traced.

    Args:
        plan: what happens to the tokens.
        target: one of ``gtp_runtime.precisions.TARGETS``.

    Raises:
        LimitError: a layer sorts more values than TensorRT's TopK takes.
    """
    if target != "tensorrt":
        return
    for index, layer in enumerate(plan.layers):
        shape = plan.layer_shape(index)
        size = plan.settings.topk(shape) if layer.num_prop else 0
        if size > MAX_TOPK:
            raise LimitError(
                f"layer {index} sorts {size} values, but TensorRT's TopK takes at most {MAX_TOPK}: "
                f"{plan.settings.topk_remedy(shape, MAX_TOPK)}, or --target onnxruntime or openvino"
            )


def check_precision(name: str, target: str | None = None) -> Precision:
    """Return the precision of a name, and check that a target's runtime runs it.

    Raises:
        LimitError: there is none, or the target does not run it.
    """
    if name not in PRECISIONS:
        raise LimitError(f"precision={name!r} is unknown: choose one of {', '.join(PRECISIONS)}")
    targets = PRECISIONS[name].targets
    if target is not None and target not in targets:
        raise LimitError(
            f"{target} does not run {name}, {' and '.join(targets)} does: export with --target {targets[0]}"
        )
    return PRECISIONS[name]


def check_opset(opset: int) -> None:
    """Check that an opset is supported.

    Raises:
        LimitError: outside ``OPSETS``.
    """
    if opset not in OPSETS:
        raise LimitError(f"opset {opset} is not supported: use {OPSETS[0]} to {OPSETS[-1]} (20 by default)")
