"""Validates what a search found on images that it never saw: the exported graphs on the backend, latency in turn."""

import warnings
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gtp_exporters.tuning.results import Loss
from gtp_exporters.tuning.timing import Running
from gtp_exporters.tuning.workers import Workers, scoring_of
from gtp_runtime import load
from gtp_runtime.accuracy import Accuracy
from gtp_runtime.errors import RandomWeightsWarning
from gtp_runtime.evaluation import evaluate_each
from gtp_runtime.fleet.timing import time_files
from gtp_runtime.images.folders import ImageSet
from gtp_runtime.latency import Latency
from gtp_runtime.progress import Progress

SECONDS = 1.5  # of timing, for each file


@dataclass(frozen=True)
class Validated:
    """What was measured of a graph.

    Attributes:
        loss: against the dense graph on the images that were held out.
        accuracy: the same, with top-1 and top-5.
        p50_ms, ratio: latency, timed in turn with all others, and relative to the dense baseline.
    """

    loss: Loss
    accuracy: Accuracy
    p50_ms: float
    ratio: float

    def beats(self, other: "Validated") -> bool:
        """Whether it diverges less and is faster."""
        return self.loss.divergence < other.loss.divergence and self.ratio < other.ratio

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self.loss), "top1": self.accuracy.top1, "dense_top1": self.accuracy.dense_top1} | {
            "p50_ms": self.p50_ms,
            "ratio": self.ratio,
        }


class Validation:
    """Runs graphs beside the dense baseline on images that are held out; all of them are timed in turn, once.

    Args:
        dense: the dense baseline.
        graphs: one or more, by name.
        images: the search never saw them.
        running: how files run.
        workers: what scores the images, and where latency is measured.
        progress: told what is being done.

    Raises:
        GTPRuntimeError: a file that cannot be loaded.
    """

    def __init__(
        self,
        dense: Path,
        graphs: Mapping[str, Path],
        images: ImageSet,
        running: Running,
        workers: Workers,
        progress: Progress,
    ) -> None:
        self.dense, self.graphs, self.images = dense, graphs, images
        self.running, self.workers, self.progress = running, workers, progress
        progress("timing what was found")
        files = [dense, *graphs.values()]
        _, *timed = workers.on_device(time_files, running.timing(*files, seconds=SECONDS * len(files)))
        self._latencies: dict[str, Latency] = dict(zip(graphs, timed, strict=True))
        self._found: dict[str, Validated] = {}

    def of(self, name: str) -> Validated:
        """Return what is measured of a graph. Raises as ``evaluate``."""
        self.run([name])
        return self._found[name]

    def run(self, names: Iterable[str]) -> None:
        """Evaluate those graphs that were not yet, in one reading of the images. Raises as ``evaluate``."""
        missing = [name for name in dict.fromkeys(names) if name not in self._found]
        if not missing:
            return
        with ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore", RandomWeightsWarning)
            baseline, *files = (
                stack.enter_context(load(path, self.running.backend, **self.running.options))
                for path in (self.dense, *(self.graphs[name] for name in missing))
            )
            scoring = scoring_of(self.workers)
            found = evaluate_each(files, baseline, self.images, self.progress, scoring=scoring)
        for name, accuracy in zip(missing, found, strict=True):
            latency = self._latencies[name]
            self._found[name] = Validated(Loss.of(accuracy), accuracy, latency.p50_ms, latency.ratio)
