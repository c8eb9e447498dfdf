"""Options of a search, checked when they are made."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from gtp_exporters.errors import LimitError
from gtp_exporters.tuning.front import Limit
from gtp_exporters.tuning.timing import Running
from gtp_models.methods.settings import is_int, is_number
from gtp_runtime.precisions import converted_names


@dataclass(frozen=True)
class TuneOptions:
    """Options of a search.

    Attributes:
        limit: what is wanted: at most so many points of top-1 lost, or at most so many milliseconds.
        data: a folder of images, one sub-folder a class where known (default: the recipe's own).
        labels: a file with the class of each image, in place of sub-folders.
        by_order: the sub-folders are the classes 0, 1, ... in alphabetical order.
        trials: how many are tried in all, those of earlier processes included.
        seconds: after which no further trial is begun; None for no end.
        images: how many images the search sees at most; None for all but those that are held out.
        precisions: of the graphs that are tried.
        batch: images per run.
        running: how files run where latency is measured.
        seed: of what Optuna draws, and of the order of the images.

    Raises:
        LimitError: a value that is not allowed.
    """

    limit: Limit
    data: Path | None = None
    labels: Path | None = None
    by_order: bool = False
    trials: int = 100
    seconds: float | None = None
    images: int | None = None
    precisions: tuple[str, ...] = ("fp32",)
    batch: int = 1
    running: Running = field(default_factory=Running)
    seed: int = 0

    def __post_init__(self) -> None:
        given = [value for value in (self.limit.max_drop, self.limit.latency_ms) if value is not None]
        if len(given) != 1:
            raise LimitError(
                f"{'both' if given else 'neither'} of max_drop and latency_ms given: a search needs one of --max-drop "
                "POINTS and --latency-budget TIME"
            )
        if not is_number(given[0]) or not math.isfinite(given[0]) or given[0] < 0:
            raise LimitError(f"the limit {given[0]!r} is not a finite number of 0 or more")
        for name, least in (("trials", 1), ("batch", 1), ("images", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and (not is_int(value) or value < least):
                raise LimitError(f"{name}={value!r}: give a whole number of at least {least}")
        if self.seconds is not None and not (is_number(self.seconds) and 0 < self.seconds < math.inf):
            raise LimitError(f"seconds={self.seconds!r}: give a finite number above 0")
        known = converted_names(self.running.target)
        unknown = [name for name in self.precisions if name not in known]
        if unknown or not self.precisions:
            raise LimitError(
                f"precision {', '.join(unknown) or 'missing'}: a search tries {', '.join(known)}; int8 is "
                "made of its result by gtp-export export --precision int8"
            )
