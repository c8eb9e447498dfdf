"""Measures the cases of a grid on one model: the measuring core's functions, one for each part of a page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from folders import labelled, synthetic
from grids import Choice
from thresholds import thresholds

from gtp_exporters.fitting import fit_settings, fitting_images
from gtp_exporters.measuring.accuracy import Judge, graph_losses
from gtp_exporters.measuring.candidate import DENSE, PLAIN, Candidate, Running
from gtp_exporters.measuring.graphs import Graphs, Source, manifest_of
from gtp_exporters.measuring.latency import footprint_of, share_of, time_in_turn
from gtp_exporters.measuring.result import Loss, Result
from gtp_exporters.measuring.shards import Local, Split
from gtp_models import ConfigError, Settings, make_settings
from gtp_runtime import ImageSet, find_image_set


@dataclass(frozen=True)
class Case:
    """Settings under a name, what they may spend, and the group that they are compared in."""

    name: str
    settings: Settings
    budget: Mapping[str, float]
    group: str


@dataclass
class Bench:
    """One model, its graphs and its images.

    Attributes:
        source: the model.
        place: a folder of ours for what is made.
        data: test images, one sub-folder a class; None for the recipe's own.
        calib_data: calibration images; None for the recipe's own.
        limit: test images at most, spread over the folder.
        seconds, loads: of timing.
        batch: images a run.
        is_beside_fp32: whether latency is over that of dense float32 on the same backend, or of its precision.
    """

    source: Source
    place: Path
    data: Path | None = None
    calib_data: Path | None = None
    limit: int = 10_000
    seconds: float = 15
    loads: int = 2
    batch: int = 1
    is_beside_fp32: bool = False

    def __post_init__(self) -> None:
        calibration = self.calib_data
        if self.source.weights == "random" and calibration is None and self.source.recipe.calibration is None:
            calibration = synthetic(self.place / "synthetic")  # only time counts
        self.graphs = Graphs(self.source, self.place / "graphs", calibration)
        self._losses: dict[Settings, Loss] = {}
        self._fits: dict[Settings, list[int]] = {}

    @property
    def folder(self) -> Path | None:
        """The test images."""
        return self.data or self.source.recipe.images

    @cached_property
    def choice(self) -> Choice:
        """The settings to measure on the model."""
        return Choice(self.source.recipe, self.graphs.model)

    @cached_property
    def images(self) -> ImageSet:
        """The test images that are measured on."""
        folder, recipe = self.folder, self.source.recipe
        if folder is None:
            raise SystemExit(f"{recipe.name} has no images of its own: give --data DIR, one sub-folder per class")
        images = find_image_set(folder, manifest_of(self.graphs.subject))
        if images.classes is None:
            raise SystemExit(f"{folder} needs one sub-folder per class, named like the recipe's labels")
        return images.spread(self.limit)

    @cached_property
    def judge(self) -> Judge:
        """Eager PyTorch on the images."""
        return Judge(self.source, Split(self.images, self.images), Local(), self.place / "answers")

    def fit(self, settings: Settings) -> list[int]:
        """Return how many tokens leave each layer, fitted on the calibration images that do not judge; once."""
        if settings not in self._fits:
            self._fits[settings] = self._fit(settings)
        return self._fits[settings]

    def _fit(self, settings: Settings) -> list[int]:
        subject, judges = self.graphs.subject, map(Path, map(self.images.path, range(len(self.images))))
        own = self.calib_data is None
        images = fitting_images(subject, settings, self.graphs.calibration, files=judges, is_own=own)
        return fit_settings(subject, settings, images).info.num_prop

    def candidates(self, cases: Sequence[Case], running: Running) -> list[tuple[Case, Candidate]]:
        """Return the cases that fit the model; the others are named."""
        fitting = []
        for case in cases:
            try:
                fitting.append((case, self.graphs.candidate(case.name, case.settings, running, self.batch)))
            except ConfigError as error:  # needs a class token, or no such schedule comes near the budget
                print(f"skipped {case.name} at {dict(case.budget)}: {error}", flush=True)
        return fitting

    def remove(self, cases: Sequence[Case], runnings: Sequence[Running]) -> None:
        """Remove the graphs of cases, to make room on the disk."""
        for running in runnings:
            self.graphs.remove(candidate for _, candidate in self.candidates(cases, running))

    def losses(self, cases: Sequence[Case], running: Running) -> list[Result]:
        """Judge the dense model and cases by eager PyTorch; no settings are judged twice."""
        results = []
        for case, candidate in self._with_dense(cases, running):
            if candidate.settings not in self._losses:
                tally = self.judge.judge([(0, candidate.settings)], 0, len(self.images))[0]
                self._losses[candidate.settings] = self.judge.loss_of(tally)
            results.append(_result(case, candidate, loss=self._losses[candidate.settings]))
        return results

    def timings(self, cases: Sequence[Case], running: Running) -> list[Result]:
        """Time cases in turn with the dense model in this precision, and with that which ratios are to."""
        fitting = self._with_dense(cases, running)
        candidates = [candidate for _, candidate in fitting]
        if self.is_beside_fp32 and _plain(running) != running:
            candidates.insert(0, replace(candidates[0], running=_plain(running)))
        files = [self.graphs.graph(candidate) for candidate in candidates]
        timings = time_in_turn(files, [one.running for one in candidates], self.seconds, self.loads)[-len(fitting) :]
        return [
            _result(case, candidate, timing=timing, share=share_of(timing, timings[0], candidate.plan.ratio))
            for (case, candidate), timing in zip(fitting, timings, strict=True)
        ]

    def costs(self, cases: Sequence[Case], running: Running) -> list[Result]:
        """Measure size, peak memory and cold start of the dense model's graph and of the first case's."""
        return [
            _result(case, candidate, cost=footprint_of(self.graphs.graph(candidate), running))
            for case, candidate in self._with_dense(cases[:1], running)
        ]

    def accuracies(self, cases: Sequence[Case], running: Running) -> list[Result]:
        """Measure graphs on the test images, beside the dense float32 graph."""
        fitting = self._with_dense(cases, running)
        candidates = [candidate for _, candidate in fitting]
        losses = self._graph_losses(replace(candidates[0], running=_plain(running)), candidates)
        return [_result(case, one, loss=loss) for (case, one), loss in zip(fitting, losses, strict=True)]

    def twins(self, cases: Sequence[Case], running: Running) -> list[Result]:
        """Measure graphs on the test images, each beside the same in float32."""
        if running.precision == PLAIN:
            return []
        return [
            _result(case, one, loss=self._graph_losses(replace(one, running=_plain(running)), [one])[0])
            for case, one in self._with_dense(cases, running)
        ]

    def thresholds(self, cases: Sequence[Case], running: Running) -> list[dict[str, Any]]:  # noqa: ARG002
        """Hold calibrated thresholds against exact ones, at the amount in the middle."""
        amounts = sorted({int(case.budget["num_prop"]) for case in cases})
        subject, folder = self.graphs.subject, self.images.folder
        images, labels = labelled(folder, subject.built, self.limit)
        pixels = torch.from_numpy(subject.preprocessing.normalise(images.pixels))
        middle = self.choice.paper(num_prop=amounts[len(amounts) // 2])
        return [asdict(row) for row in thresholds(subject.model, pixels, labels, middle, self.graphs.calibration)]

    def _with_dense(self, cases: Sequence[Case], running: Running) -> list[tuple[Case, Candidate]]:
        dense = Case(DENSE, make_settings(DENSE), cases[0].budget, cases[0].group)
        return self.candidates([dense, *cases], running)

    def _graph_losses(self, first: Candidate, candidates: Sequence[Candidate]) -> list[Loss]:
        every = [first, *candidates]
        files = [self.graphs.graph(one) for one in every]
        return graph_losses(files, [one.running for one in every], self.images)[1:]


PARTS: dict[str, Callable[[Bench, Sequence[Case], Running], list[Any]]] = {
    "losses": Bench.losses,
    "timings": Bench.timings,
    "costs": Bench.costs,
    "accuracies": Bench.accuracies,
    "twins": Bench.twins,
    "thresholds": Bench.thresholds,
}
EAGER = ("losses", "thresholds")  # no graphs: any running is the same


def _plain(running: Running) -> Running:
    """Return float32 on the same backend."""
    return Running(running.backend, {name: value for name, value in running.options.items() if name != "compute"})


def _result(case: Case, candidate: Candidate, **measured: Any) -> Result:
    budget = {"group": case.group, **case.budget}
    return replace(Result.of(candidate, **measured), budget=budget)
