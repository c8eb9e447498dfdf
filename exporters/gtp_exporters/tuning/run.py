"""``tune``: from a model, images and a limit to a recipe that was validated on other images."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtp_exporters.directory import tidied
from gtp_exporters.directory.contents import refuse
from gtp_exporters.directory.lock import held
from gtp_exporters.errors import LimitError, OutputError
from gtp_exporters.figures_key import figures_key
from gtp_exporters.subject import Subject, calibrated
from gtp_exporters.tuning.estimating import macs_ratio
from gtp_exporters.tuning.finishing import Finish
from gtp_exporters.tuning.judging import Judge, loss_of
from gtp_exporters.tuning.options import TuneOptions
from gtp_exporters.tuning.outcome import Outcome
from gtp_exporters.tuning.results import Result
from gtp_exporters.tuning.rungs import rungs
from gtp_exporters.tuning.scoring import ModelSource, forget, subject_of
from gtp_exporters.tuning.search import Search
from gtp_exporters.tuning.shards import split
from gtp_exporters.tuning.space import Proposal, make_space
from gtp_exporters.tuning.storage import NAME, Journal
from gtp_exporters.tuning.timing import BASELINE, Timer
from gtp_exporters.tuning.workers import Local, Workers
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.plan import make_plan, model_shape
from gtp_models.recipes import Recipe
from gtp_runtime.backends import find_backend, make_options
from gtp_runtime.errors import NoClassesError
from gtp_runtime.images.folders import ImageSet, image_names
from gtp_runtime.images.labels import find_image_set
from gtp_runtime.machine import describe_machine
from gtp_runtime.manifest import MODEL_NAME, WORK_NAME, Manifest, ModelInfo, WeightsInfo
from gtp_runtime.progress import Progress, quiet

WORK = "tune"  # in the hidden folder: exports, and the dense model's answers
ANSWERS = "dense"  # the folder of the latter


def tune(
    recipe: Recipe,
    output: Path | str,
    options: TuneOptions,
    *,
    weights: str = "pretrained",
    seed: int = 0,
    workers: Workers | None = None,
    progress: Progress = quiet,
) -> Outcome:
    """Search for GTP settings of a recipe's model, and write what was found.

    Args:
        recipe: the model; its own settings are what is to be beaten.
        output: the directory of the journal, the page and the recipe. A search there is gone on with.
        options: what is searched, and where latency is measured.
        weights, seed: as for ``gtp_models.build_model``.
        workers: what computes (default: this process).
        progress: told what is being done.

    Raises:
        LimitError: options that do not go together.
        ImageError: too few images, or classes that do not fit.
        OutputError: the directory cannot be written, holds other files, or another search.
        MissingPackageError: Optuna is not installed.
        ModelsError, GTPRuntimeError: errors of the model, its weights, and the backend.
    """
    make_options(find_backend(Path(MODEL_NAME), options.running.backend), options.running.options)  # fail early
    folder = options.data or recipe.images
    if folder is None:
        raise LimitError(f"{recipe.name} has no images of its own: give --data DIR, one sub-folder per class if known")
    image_names(folder)  # fail early
    with _work(Path(output)) as place:
        return _Run(recipe, Path(output), options, ModelSource(recipe, weights, seed), workers, place, progress).run()


@contextmanager
def _work(directory: Path) -> Iterator[Path]:
    """Hold the directory, which holds nothing but an earlier search, and yield the folder to work in.

    Raises:
        OutputError: it holds other files, cannot be written, or another search runs there.
    """
    try:
        if directory.exists() and not (directory / NAME).exists():
            refuse(directory, {entry.name for entry in directory.iterdir()} - {WORK_NAME})
        with tidied(directory), held(directory / WORK_NAME):
            place = directory / WORK_NAME / WORK
            place.mkdir(exist_ok=True)
            try:
                yield place
            finally:
                with suppress(OSError):  # it holds answers, as it should
                    _remove_exports(place)
                    place.rmdir()
    except OSError as error:
        if error.filename is None or not str(error.filename).startswith(os.fspath(directory)):
            raise
        raise OutputError(f"cannot write {directory}: {error.strerror}; choose another -o") from error


def _remove_exports(place: Path) -> None:
    """Remove what a search exported, also one that was killed: all but the dense model's answers."""
    for export in place.iterdir():
        if export.name != ANSWERS:
            shutil.rmtree(export, ignore_errors=True)


@dataclass
class _Run:
    """What a search goes through, one step after another."""

    recipe: Recipe
    output: Path
    options: TuneOptions
    source: ModelSource
    workers: Workers | None
    place: Path
    progress: Progress

    def run(self) -> Outcome:
        """Search, choose, validate, and write."""
        options, workers = self.options, self.workers or Local()
        until = None if options.seconds is None else time.monotonic() + options.seconds
        self.progress(f"building {self.recipe.timm}")
        forget()
        self.subject = subject_of(self.source)
        if not self.subject.classes:
            raise NoClassesError(f"{self.recipe.name} outputs features, and a search compares classes: tune another")
        images = self._images()
        self.split = split(images, options.images, options.seed)
        key = self._key(images, workers)
        journal = Journal(self.output, key, 2 if images.classes is None else 3, options.seed)
        settings = calibrated(self.subject, self.recipe.settings(), None, self.progress)
        assert isinstance(settings, GTPConfig)
        self.timer = Timer(self.subject, options.running, options.batch, self.place, workers)
        self.progress("exporting the dense baseline and the recipe's default")
        graph = self.timer.export(BASELINE, settings, dense=True)
        self.timer.check_precisions(settings, options.precisions)
        source = replace(self.source, sha256=self.subject.built.sha256)
        question = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        judge = Judge(source, self.split, workers, self.place / ANSWERS, self.subject.classes, question)
        default = journal.default() or self._default(settings, judge, graph)
        journal.keep_default(default)
        self.timer.learn([default, *journal.results()])
        space = make_space(model_shape(self.subject.model), settings.num_neighbours, options.precisions)
        search = Search(journal, space, judge, self.timer, options.limit, default)
        search.run(options.trials, until, self.progress)
        given = (self.recipe, self.source.weights, self.output, options, self.split, self.timer, self.progress)
        return Finish(*given).run(search)

    def _images(self) -> ImageSet:
        options, folder = self.options, self.options.data or self.recipe.images
        assert folder is not None
        return find_image_set(folder, described(self.subject), options.labels, by_order=options.by_order)

    def _key(self, images: ImageSet, workers: Workers) -> dict[str, Any]:
        """What the figures of a search depend on."""
        options = self.options
        device = workers.on_device(describe_machine, [options.running.target])
        return figures_key(self.recipe, described(self.subject), images, self.recipe.calibration, device) | {
            "searched": len(self.split.search),
            "seed": options.seed,
            "precisions": list(options.precisions),
            "batch": options.batch,
            "backend": [options.running.target, *map(str, sorted(options.running.options.items()))],
        }

    def _default(self, settings: GTPConfig, judge: Judge, graph: Path) -> Result:
        """Judge and time the recipe's default, which was exported with the dense baseline."""
        self.progress("measuring the recipe's default")
        plan = make_plan(self.subject.model, settings)
        assert isinstance(plan.settings, GTPConfig)
        proposal = Proposal(plan.settings, "fp32")
        result = Result(plan.settings.to_dict(), "fp32", list(plan.num_prop), macs_ratio(plan), macs_ratio(plan))
        total, begin = None, 0
        for end in rungs(len(self.split.search)):
            tally = judge.judge([(0, plan.settings)], begin, end)[0]
            if total is None:
                total = tally
            else:
                total.merge(tally)
            loss = loss_of(total)
            result, begin = replace(result, loss=loss, rungs=[*result.rungs, loss.divergence]), end
        timing = self.timer.time(graph, self.timer.key(proposal, plan))
        return replace(result, timing=timing)


def described(subject: Subject) -> Manifest:
    """Return the manifest of a model of which nothing is exported yet: its classes."""
    built, shape = subject.built, model_shape(subject.model)
    model = ModelInfo(
        built.recipe.name, built.recipe.title, built.recipe.timm, subject.classes, shape.num_prefix, list(shape.grid)
    )
    weights = WeightsInfo(built.source, built.detail, built.sha256)
    known = (subject.labels, subject.label_ids)
    return Manifest(model, weights, "dense", {}, [], {}, subject.preprocessing, {}, labels=known[0], label_ids=known[1])
