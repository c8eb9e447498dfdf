"""Exports what may be good, and times it beside the dense baseline; what has the same shapes is timed once."""

import json
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gtp_exporters.artifacts import DENSE_NAME, write_artifacts
from gtp_exporters.options import ExportOptions
from gtp_exporters.reference import synthetic_images
from gtp_exporters.subject import Subject
from gtp_exporters.tuning.results import Loss, Result, Timing
from gtp_exporters.tuning.space import Proposal, token_counts
from gtp_exporters.tuning.workers import Workers, scoring_of
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.settings import Settings
from gtp_models.plan import Plan, make_plan
from gtp_runtime import evaluate, load
from gtp_runtime.backends import find_backend
from gtp_runtime.errors import RandomWeightsWarning
from gtp_runtime.fleet.timing import Timing as InTurn
from gtp_runtime.fleet.timing import time_files
from gtp_runtime.images.folders import ImageSet
from gtp_runtime.latency import MIN_RUNS, Latency
from gtp_runtime.manifest import MODEL_NAME
from gtp_runtime.progress import quiet

BASELINE = "baseline"  # folder of the dense baseline and the recipe's default
GRAPH_IMAGES = 1024  # that the loss of a graph in a lower precision is measured on
SECONDS = 2.0  # of timing, for two files together
LOADS = 3  # loadings that these are shared by; the one in the middle counts


@dataclass(frozen=True)
class Running:
    """How files run where latency is measured: a backend, its options, and seconds of timing for two files."""

    backend: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = field(default_factory=lambda: SECONDS)

    @property
    def target(self) -> str:
        """The runtime that graphs are exported for."""
        return find_backend(Path(MODEL_NAME), self.backend).name

    def timing(self, *files: Path, seconds: float | None = None) -> InTurn:
        """Return files to be timed in turn so, the dense baseline first."""
        total = self.seconds * len(files) / 2 if seconds is None else seconds
        rounds = -(-MIN_RUNS // LOADS)
        return InTurn(files, self.backend, (self.options,) * len(files), total / LOADS, rounds, LOADS)


def loss_of_graph(graph: Path, dense: Path, images: ImageSet, running: Running, workers: Workers) -> Loss:
    """Return what a graph loses against the dense baseline's; workers run both."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeightsWarning)
        models = [load(file, running.backend, **running.options) for file in (graph, dense)]
    try:
        return Loss.of(evaluate(models[0], models[1], images, scoring=scoring_of(workers)))
    finally:
        for model in models:
            model.close()


class Timer:
    """Times settings.

    Args:
        subject: the model.
        running: how files run.
        batch: images per run.
        place: a folder for exports, which is ours.
        workers: where latency is measured.
    """

    def __init__(self, subject: Subject, running: Running, batch: int, place: Path, workers: Workers) -> None:
        self.subject, self.running, self.batch, self.place, self.workers = subject, running, batch, place, workers
        self._known: dict[str, Timing] = {}

    def learn(self, results: Iterable[Result]) -> None:
        """Take note of timings that need not be measured again."""
        self._known |= {result.timing.key: result.timing for result in results if result.timing is not None}

    def export(self, name: str, settings: Settings, precision: str = "fp32", dense: bool = False) -> Path:
        """Write the graph of settings into a folder of its own and return its path; with ``dense`` the baseline too."""
        place = self.place / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        options = ExportOptions(batch=self.batch, dense=dense, target=self.running.target, precision=precision)
        images = synthetic_images(self.subject.preprocessing.crop)
        write_artifacts(self.subject, make_plan(self.subject.model, settings), images, options, place, quiet)
        return place / MODEL_NAME

    @property
    def baseline(self) -> Path:
        """The dense baseline, which ``export(BASELINE, ..., dense=True)`` wrote."""
        return self.place / BASELINE / DENSE_NAME

    def known(self, proposal: Proposal, plan: Plan) -> Timing | None:
        """Return the timing of the same shapes; None if there is none."""
        found = self._known.get(self.key(proposal, plan))
        return None if found is None else replace(found, cached=True)

    def measure(self, proposal: Proposal, plan: Plan, images: ImageSet) -> tuple[Timing, Loss | None]:
        """Return the latency of settings: timed, or known of others with the same shapes; and the loss of the graph.

        Args:
            proposal: the settings.
            plan: theirs.
            images: to measure the loss of a graph on, at most ``GRAPH_IMAGES``. It is None for a float32 graph, which
                answers as eager PyTorch does.
        """
        known, lowered = self.known(proposal, plan), proposal.precision != "fp32"
        if known is not None and not lowered:
            return known, None
        graph = self.export("candidate", proposal.settings, proposal.precision)
        timing = known or self.time(graph, self.key(proposal, plan))
        part = images.part(slice(GRAPH_IMAGES))
        loss = loss_of_graph(graph, self.baseline, part, self.running, self.workers) if lowered else None
        shutil.rmtree(graph.parent)
        return timing, loss

    def check_precisions(self, settings: Settings, precisions: Iterable[str]) -> None:
        """Check that the backend runs graphs in these precisions, before a search begins.

        Raises:
            BackendMissingError: it does not run one of them.
        """
        for precision in precisions:
            if precision != "fp32":
                graph = self.export("candidate", settings, precision)
                self.workers.on_device(time_files, self.running.timing(graph, seconds=0.0))

    def time(self, graph: Path, key: str) -> Timing:
        """Time a graph beside the dense baseline."""
        self._known[key] = Timing.of(self.time_all([graph])[0], key)
        return self._known[key]

    def time_all(self, graphs: Sequence[Path]) -> list[Latency]:
        """Time graphs in turn with the dense baseline, in one process."""
        return self.workers.on_device(time_files, self.running.timing(self.baseline, *graphs))[1:]

    def key(self, proposal: Proposal, plan: Plan) -> str:
        """Return what latency depends on: token counts, what each layer computes, precision, batch, backend."""
        config, shape = proposal.settings, plan.shape
        return json.dumps(
            {
                "tokens": token_counts(plan.num_prop, shape.patches + shape.num_prefix),
                "method": [config.selection, config.graph, config.propagation, config.token_scale, _threshold(config)],
                "precision": proposal.precision,
                "batch": self.batch,
                "backend": [self.running.backend, sorted(self.running.options.items())],
            }
        )


def _threshold(config: GTPConfig) -> str:
    """What is computed for the sparsity: an exact threshold is found by sorting, a calibrated one is a constant."""
    return config.threshold if config.sparsity < 1 else ""
