"""What is compared and how it is measured, checked when it is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gtp_exporters.comparing.methods import Budget
from gtp_exporters.errors import LimitError
from gtp_runtime.latency import check_duration

BUDGETS = (Budget(keep=0.85), Budget(keep=0.75), Budget(keep=0.6))
SECONDS, ROUNDS = 3.0, 3


@dataclass(frozen=True)
class CompareOptions:
    """What is compared and how.

    Attributes:
        methods: names of methods (``methods.check_names``); None is ``methods.default_names``.
        budgets: what the methods may spend.
        backends: backends that run ONNX files.
        precisions: precisions of the graphs; where a backend can compute in one by itself, it does.
        data: a folder of test images (default: the recipe's own).
        labels: a file that says the class of each image of ``data``.
        by_order: the sub-folders of ``data`` in alphabetical order are the classes 0, 1, ….
        limit: images at most, spread over the folder.
        workers: threads that read images; None is one for each CPU.
        batch: images per run.
        calib_data: training images that int8 is calibrated on (default: the recipe's own).
        seconds: of timing in each round, for all files of a budget together.
        rounds: how often files are loaded anew and timed; the one with the median ratio is reported.
        footprint: measure peak memory and cold start, in a process of its own for each file.
        backend_options: options of the backends; ``threads`` is 1 by default.

    Raises:
        LimitError, InputError: a value that is not allowed.
    """

    methods: tuple[str, ...] | None = None
    budgets: tuple[Budget, ...] = BUDGETS
    backends: tuple[str, ...] = ("onnxruntime",)
    precisions: tuple[str, ...] = ("fp32",)
    data: Path | None = None
    labels: Path | None = None
    by_order: bool = False
    limit: int | None = None
    workers: int | None = None
    batch: int = 1
    calib_data: Path | None = None
    seconds: float = SECONDS
    rounds: int = ROUNDS
    footprint: bool = True
    backend_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("methods", "budgets", "backends", "precisions"):
            if getattr(self, name) == ():
                raise LimitError(f"{name} is empty: name at least one")
        for name in ("limit", "rounds", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LimitError(f"{name}={value}: give at least 1")
        if self.data is None and (self.labels is not None or self.by_order):
            raise LimitError("labels and by_order say which classes the images of data have: give --data DIR as well")
        check_duration(self.seconds)
