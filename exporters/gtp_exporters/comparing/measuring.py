"""Measures the cases of one budget on one backend: accuracy on the same images, latency in turn with the dense one."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from gtp_exporters.comparing.cases import Case
from gtp_exporters.comparing.figures import Timed, make_row, of_baseline
from gtp_exporters.comparing.graphs import Graphs
from gtp_exporters.comparing.rows import Row
from gtp_exporters.comparing.runs import Run
from gtp_runtime import Accuracy, Footprint, ImageSet, Model, load
from gtp_runtime.errors import DeviceError
from gtp_runtime.evaluating import evaluate_each
from gtp_runtime.fleet import Fleet, Timing, fleet_scoring, time_files
from gtp_runtime.fleet.timing import Start, start_file
from gtp_runtime.footprint import file_bytes
from gtp_runtime.progress import Progress
from gtp_runtime.scoring import score_images

STARTS = 1  # processes for each file
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measuring:
    """How cases are measured.

    Attributes:
        graphs: makes the graphs.
        images: what accuracy is measured on.
        kept: a folder that keeps how far evaluations are.
        seconds: of timing for all files together, in each round.
        rounds: how often files are loaded anew and timed.
        workers: threads that read images; None is one for each CPU.
        footprint: measure memory and cold start, in a process of its own for each file.
        progress: told what is being done.
        fleet: nodes that score the images, and one that measures latency, memory and cold start; None is this machine.
    """

    graphs: Graphs
    images: ImageSet
    kept: Path
    seconds: float
    rounds: int
    workers: int | None
    footprint: bool
    progress: Progress
    fleet: Fleet | None = None

    def measure(self, dense: Case, cases: Sequence[Case], runs: Sequence[Run], what: str) -> list[Row]:
        """Measure cases and the dense model in all runs of one backend; the first run is the baseline's.

        Args:
            dense: the dense model.
            cases: the cases of one budget.
            runs: those of one backend.
            what: what this is, for ``progress``.

        Returns:
            One row for each case in each run that is wanted, and the dense model's in each run.

        Raises:
            as ``export``, ``load`` and ``evaluate``.
        """
        pairs = [(case, run) for run in runs for case in ((dense, *cases) if run.is_wanted else (dense,))]
        paths = [self.graphs.graph(case, run.form) for case, run in pairs]

        def told(task: str, share: float | None = None) -> None:
            self.progress(f"{what}: {task}", share)

        accuracies, latencies = self._run(paths, [run for _, run in pairs], told)
        ratios = {(case.label, run.label): ratio for (case, run), (_, ratio) in zip(pairs, latencies, strict=True)}
        costs = [self._cost(path, run, told) for path, (_, run) in zip(paths, pairs, strict=True)]
        return [
            make_row(case, run, accuracy, cost, Timed(*latency, ratios[dense.label, run.label]))
            for (case, run), accuracy, latency, cost in zip(pairs, accuracies, latencies, costs, strict=True)
        ]

    def _run(
        self, paths: Sequence[Path], runs: Sequence[Run], progress: Progress
    ) -> tuple[list[Accuracy], list[tuple[float, float]]]:
        """Return the accuracy of each file, and its latency and ratio in the middle one of the rounds."""
        progress(f"loading {len(paths)} graphs")
        with _loaded(paths, runs) as models:
            accuracies = self._accuracies(models, progress)
        progress("timing")
        options = tuple(run.options for run in runs)
        timing = Timing(tuple(paths), runs[0].backend, options, self.seconds, loads=self.rounds)
        timed = time_files(timing) if self.fleet is None else self.fleet.on_device(time_files, timing)
        return accuracies, [(latency.p50_ms, latency.ratio) for latency in timed]

    def _cost(self, path: Path, run: Run, progress: Progress) -> Footprint:
        """Return the size of a file and, if wanted, what a process of its own takes, where one can run it."""
        if not self.footprint:
            return Footprint(file_bytes(path))
        progress("measuring memory and cold start")
        try:
            start = Start((path,), run.backend, run.options, STARTS)
            return start_file(start) if self.fleet is None else self.fleet.on_device(start_file, start)
        except DeviceError as error:
            log.info("memory and cold start of %s on %s are not measured: %s", path, run.label, error)
            return Footprint(file_bytes(path))

    def _accuracies(self, models: Sequence[Model], progress: Progress) -> list[Accuracy]:
        """Return the accuracy of each file, the dense baseline's first: from what it is in the others' comparison."""
        baseline, *others = models
        kept = [self.kept / f"{_name(model, baseline, self.images)}.json" for model in others]
        scoring = score_images if self.fleet is None else fleet_scoring(self.fleet)
        reading: Any = {"workers": self.workers, "resume": kept, "scoring": scoring}
        found = evaluate_each(others, baseline, self.images, progress, **reading)
        return [of_baseline(found[0]), *found]


@contextmanager
def _loaded(paths: Sequence[Path], runs: Sequence[Run]) -> Iterator[list[Model]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(load(path, run.backend, **run.options)) for path, run in zip(paths, runs, strict=True)
        ]


def _name(model: Model, baseline: Model, images: ImageSet) -> str:
    """Return a name for what is kept of an evaluation: another file, option or folder has another."""
    parts = [model.entry.sha256, baseline.entry.sha256, model.backend.name, str(model.backend.info), images.digest()]
    return sha256("\n".join(parts).encode()).hexdigest()[:32]
