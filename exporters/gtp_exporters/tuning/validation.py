"""Validates what a search found on images that it never saw: the exported graphs on the backend, latency in turn."""

import warnings
from collections.abc import Sequence
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
from gtp_runtime.evaluating import evaluate_each
from gtp_runtime.fleet.timing import time_files
from gtp_runtime.image_set import ImageSet
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self.loss), "top1": self.accuracy.top1, "dense_top1": self.accuracy.dense_top1} | {
            "p50_ms": self.p50_ms,
            "ratio": self.ratio,
        }


def validate_graphs(
    dense: Path, graphs: Sequence[Path], images: ImageSet, running: Running, workers: Workers, progress: Progress
) -> list[Validated]:
    """Run graphs beside the dense baseline on images that are held out, and time all of them in turn.

    Args:
        dense: the dense baseline.
        graphs: one or more.
        images: the search never saw them.
        running: how files run.
        workers: what scores the images, and where latency is measured.
        progress: told what is being done.

    Raises:
        GTPRuntimeError: a file that cannot be loaded, or no image that can be read.
    """
    progress("timing what was found")
    _, *timed = workers.on_device(time_files, running.timing(dense, *graphs, seconds=SECONDS * (1 + len(graphs))))
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeightsWarning)
        baseline, *files = (
            stack.enter_context(load(path, running.backend, **running.options)) for path in (dense, *graphs)
        )
        found = evaluate_each(files, baseline, images, progress, scoring=scoring_of(workers))
    return [
        Validated(Loss.of(accuracy), accuracy, latency.p50_ms, latency.ratio)
        for accuracy, latency in zip(found, timed, strict=True)
    ]
