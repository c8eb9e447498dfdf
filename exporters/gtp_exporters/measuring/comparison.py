"""A comparison: what is asked for, and all that was measured."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gtp_exporters.errors import LimitError
from gtp_exporters.measuring.candidate import PLAIN
from gtp_exporters.measuring.methods import Budget, Skipped
from gtp_exporters.measuring.result import Result
from gtp_runtime.latency import check_duration

BUDGETS = (Budget(keep=0.85), Budget(keep=0.75), Budget(keep=0.6))
SECONDS, ROUNDS = 3.0, 3
FORMAT = "gtp-export comparison 2"


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
        limit: images at most, spread over the folder.
        workers: threads that read images; None is one for each CPU.
        batch: images per run.
        calib_data: training images that candidates are calibrated on where they need it (default: the recipe's own).
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
    precisions: tuple[str, ...] = (PLAIN,)
    data: Path | None = None
    labels: Path | None = None
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
        wrong = [budget for budget in self.budgets if not isinstance(budget, Budget)]
        if wrong:
            raise LimitError(f"budgets={wrong[0]!r}: give Budget(keep=0.75) or Budget(num_prop=8)")
        for name in ("limit", "rounds", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LimitError(f"{name}={value}: give at least 1")
        if self.data is None and self.labels is not None:
            raise LimitError("labels say which classes the images of data have: give --data DIR as well")
        check_duration(self.seconds)


@dataclass(frozen=True)
class Comparison:
    """All results, and what they depend on.

    Attributes:
        model, title, timm: the recipe's names.
        weights: where the weights come from.
        data: name of the folder of images.
        images: how many were measured; ``unreadable`` more could not be read.
        batch: images per run.
        seconds, rounds: of timing, as in ``CompareOptions``.
        options: options of each backend.
        tools: versions of packages.
        rows: the dense model first, then by budget and method.
        skipped: what could not be compared.
        sources: of the published figures, by what they are of.
        class_order, class_folders: what said the classes of the images' folders, as in ``gtp_runtime.ImageSet``.
    """

    model: str
    title: str
    timm: str
    weights: str
    data: str
    images: int
    unreadable: int
    batch: int
    seconds: float
    rounds: int
    options: dict[str, dict[str, Any]]
    tools: dict[str, str]
    rows: list[Result]
    skipped: list[Skipped] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    class_order: str | None = None
    class_folders: dict[str, int] | None = None
    format: str = FORMAT

    @property
    def has_classes(self) -> bool:
        """Whether the classes of the images are known."""
        return all(row.loss is not None and row.loss.top1 is not None for row in self.rows)

    def runs(self) -> list[tuple[str, str]]:
        """Return backend and precision of every table."""
        return list(dict.fromkeys((row.backend, row.precision) for row in self.rows))

    def of(self, backend: str, precision: str) -> list[Result]:
        """Return the rows of a table."""
        return [row for row in self.rows if (row.backend, row.precision) == (backend, precision)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"rows": [row.to_dict() for row in self.rows]}
