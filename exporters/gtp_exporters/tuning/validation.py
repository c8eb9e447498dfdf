"""Validates what a search found on images that it never saw: the exported graphs on the backend, latency in turn."""

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gtp_exporters.tuning.results import Loss
from gtp_exporters.tuning.timing import Running
from gtp_exporters.tuning.workers import Workers
from gtp_runtime import evaluate, load
from gtp_runtime.accuracy import Accuracy
from gtp_runtime.errors import RandomWeightsWarning
from gtp_runtime.fleet.timing import time_files
from gtp_runtime.image_set import ImageSet
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self.loss), "top1": self.accuracy.top1, "dense_top1": self.accuracy.dense_top1} | {
            "p50_ms": self.p50_ms,
            "ratio": self.ratio,
        }


def validate_graphs(
    dense: Path, graphs: Mapping[str, Path], images: ImageSet, running: Running, workers: Workers, progress: Progress
) -> dict[str, Validated]:
    """Run graphs beside the dense baseline on images that are held out, and time all of them in turn.

    Args:
        dense: the dense baseline.
        graphs: by name.
        images: the search never saw them.
        running: how files run.
        workers: where latency is measured.
        progress: told what is being done.

    Raises:
        GTPRuntimeError: a file that cannot be loaded, or no image that can be read.
    """
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeightsWarning)
        files = {
            name: stack.enter_context(load(path, running.backend, **running.options))
            for name, path in {"dense": dense, **graphs}.items()
        }
        baseline = files["dense"]
        timing = running.timing(dense, *graphs.values(), seconds=SECONDS * len(files))
        progress("timing what was found")
        timed: dict[str, Latency] = dict(zip(files, workers.on_device(time_files, timing), strict=True))
        found = {name: evaluate(files[name], baseline, images, progress) for name in graphs}
    return {
        name: Validated(Loss.of(accuracy), accuracy, timed[name].p50_ms, timed[name].ratio)
        for name, accuracy in found.items()
    }
