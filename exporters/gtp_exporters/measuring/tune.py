"""``tune``: from a model, images and a limit to a recipe, proven on other images and never slower than dense."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtp_exporters.errors import ConversionError, ExportError, LimitError
from gtp_exporters.fitting import fit_settings, images_of, usual_settings
from gtp_exporters.measuring.accuracy import Judge, forget_pixels
from gtp_exporters.measuring.candidate import DENSE, INT8, PLAIN, Candidate
from gtp_exporters.measuring.choice import (
    FINALISTS,
    Limit,
    TuneOptions,
    beating,
    different,
    finalists,
    first_that_holds,
)
from gtp_exporters.measuring.graphs import Graphs, Source, forget, manifest_of
from gtp_exporters.measuring.outcome import Outcome, notes_of, write_outcome
from gtp_exporters.measuring.result import Loss, Result, Timing, front, is_timed
from gtp_exporters.measuring.search import GRAPH_IMAGES, TASK, Deadline, Search, Timer, TimeUpError
from gtp_exporters.measuring.shards import Local, Workers, rungs, split
from gtp_exporters.measuring.space import make_space
from gtp_exporters.measuring.store import Store, figures_key, remove, working
from gtp_exporters.quantizing.search import QuantizationFailedError
from gtp_exporters.subject import calibrate_on
from gtp_models.errors import ConfigError
from gtp_models.methods import make_settings
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.plan import make_plan, model_shape
from gtp_models.recipes import Recipe
from gtp_models.schedules import FITTED, Amounts
from gtp_runtime.errors import BackendMissingError, DeviceError, ImageError
from gtp_runtime.images.class_folders import folder_words
from gtp_runtime.images.folders import ImageSet, image_names
from gtp_runtime.machine import describe_machine
from gtp_runtime.manifest import WORK_NAME
from gtp_runtime.messages import Progress, one_line, quiet
from gtp_runtime.question import LOGITS, Question, ask, images_for
from gtp_runtime.transaction import refuse

STORE = "tune.jsonl"
DEFAULT = "the recipe's default"
ROOM = 0.9  # of a latency budget: a dense model within it needs no search
SEARCHED = 0.7  # of the time, where int8 is tried afterwards
FITTING = 0.1  # of the time, for the plan that the search starts from
SEARCHED_IMAGES = "images of the search"


class SearchError(ExportError):
    """A search that tried nothing, so that nothing can be chosen."""


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
        recipe: the model; its own settings, and the dense model, are what is to be beaten.
        output: the directory of the results, the page and the recipe. A search there is resumed.
        options: what is searched, and where latency is measured.
        weights, seed: as for ``gtp_models.build_model``.
        workers: what computes (default: this process).
        progress: told what is being done.

    Raises:
        LimitError: options that do not go together.
        ImageError: too few images, or classes that do not fit.
        OutputError: the directory cannot be written, holds other files, or another search.
        SearchError: the time was up before anything was tried.
        MissingPackageError: Optuna is not installed.
        ModelsError, GTPRuntimeError: errors of the model, its weights, and the backend.
    """
    folder, directory = options.data or recipe.images, Path(output)
    if folder is None:
        raise LimitError(f"{recipe.name} has no images of its own: give --data DIR, one sub-folder per class if known")
    image_names(folder)  # fail early
    if directory.exists() and not (directory / STORE).exists():
        refuse(directory, {entry.name for entry in directory.iterdir()} - {WORK_NAME})
    forget()
    forget_pixels()
    _check_calibration(recipe, options)
    with working(directory, "tune") as place:
        try:
            source = Source(recipe, weights, seed, output=options.output, layers=options.layers)
            source.outline()  # fail early
            return _Tuning(source, directory, folder, options, workers or Local(), place, progress).run()
        finally:
            remove(place / "graphs")


def _check_calibration(recipe: Recipe, options: TuneOptions) -> None:
    if options.calib_data is None:
        return
    if not options.int8 and not recipe.settings().needs_calibration:
        raise LimitError("calib_data has no effect: int8 is left out, and no thresholds are calibrated")
    image_names(options.calib_data)  # fail early


def _check_limit(limit: Limit, asked: Question, images: ImageSet) -> None:
    """Raise ``LimitError`` for points of a top-1 that nothing has; of logits, the classes that change bound it."""
    is_known = asked.kind == LOGITS or (asked.has_classes and images.classes is not None)
    if limit.max_drop is not None and not is_known:
        raise LimitError(
            f"max_drop is of top-1, and here nothing has classes: give --max-distance (max_distance), of "
            f"{asked.metric.name}{', or images in one sub-folder a class' if asked.has_classes else ''}"
        )


@dataclass
class _Tuning:
    """What a search goes through, one step after another."""

    source: Source
    output: Path
    folder: Path
    options: TuneOptions
    workers: Workers
    place: Path
    progress: Progress

    def run(self) -> Outcome:
        """Search, choose, validate, and write."""
        options = self.options
        self.deadline, self.notes = Deadline(options.seconds), list[str]()
        self.progress(f"building {self.source.recipe.timm}")
        remove(self.place / "graphs")  # of a search that was killed
        threads = int(options.running.options.get("threads", 1))
        self.graphs = Graphs(
            self.source, self.place / "graphs", options.calib_data, threads, is_gated=True, progress=self.progress
        )
        search = self._search()
        lowered: list[Result] = []
        if not self._is_dense_enough():
            is_int8 = self._tries_int8(search.results[0])
            self.progress(TASK, 0.0)
            deadline = self.deadline.share(SEARCHED) if is_int8 else self.deadline
            search.run(options.trials, deadline, self.progress)
            if not search.trials:
                raise SearchError(self._untried())
            lowered = self._in_int8(search.results) if is_int8 else []
        outcome = self._finish(search, lowered)
        self.progress("writing the page and the recipe")
        write_outcome(outcome)
        return outcome

    def _search(self) -> Search:
        """Measure the dense model and the recipe's default, and return the search."""
        options, subject = self.options, self.graphs.subject
        manifest = manifest_of(subject)
        asked, _ = ask(manifest, metric=options.metric, classes_from=options.classes_from)
        images = images_for(self.folder, manifest, asked, options.labels)
        _check_limit(options.limit, asked, images)
        folders = folder_words(images.class_order, images.class_folders)
        self.notes = [folders] if folders else []
        self.split = split(images, options.images, options.seed)
        key = self._key(images) | {"measured": [*asked.key, options.output, list(options.layers)]}
        self.store = Store(self.output / STORE, key)
        settings = usual_settings(self.source.recipe, options.output)
        if settings.needs_calibration:
            assert isinstance(settings, GTPConfig)
            switches = self.graphs.source.recipe.switches
            settings = calibrate_on(
                self.graphs.model, settings, self.graphs.calibration, self.progress, switches=switches
            )
        source = replace(self.source, sha256=subject.built.sha256)
        question = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        self.judge = Judge(source, self.split, self.workers, self.place / DENSE, question, asked, self.deadline.check)
        self.dense = self._candidate(DENSE, make_settings(DENSE))
        self.default = self._candidate(DEFAULT, make_plan(self.graphs.model, settings).settings)
        self.timer = Timer(self.graphs, self.dense, options.timing, self.workers, asked)
        self.progress("exporting the dense model and the recipe's default")
        for precision in options.precisions:
            if precision != PLAIN:
                running = options.running.in_precision(precision)
                self.timer.check(replace(self.default, running=running))
        try:
            base = self.store.results(DEFAULT) or self._measure_default()
        except TimeUpError:
            raise SearchError(self._untried()) from None
        assert isinstance(settings, GTPConfig)
        fitted = None if self._is_dense_enough() else self._fitted()
        space = make_space(model_shape(self.graphs.model), settings.num_neighbours, options.precisions, fitted)
        search = Search(self.store, space, self.judge, self.timer, options.limit, base, options.seed)
        for result in filter(is_timed, search.results[1:]):
            assert result.timing is not None
            self.timer.learn(self._of(result), result.timing)
        return search

    def _fitted(self) -> Amounts | None:
        """Return the plan that is fitted on images of the search, of the default's MACs; None where none can be."""
        kept = self.store.values.get(FITTED)
        if kept is None:
            settings = GTPConfig.measured(keep=self.default.plan.ratio, schedule=FITTED)
            left = self.deadline.share(FITTING).left
            try:
                images = images_of(self.graphs.subject, self.split.search, SEARCHED_IMAGES)
                fitted = fit_settings(
                    self.graphs.subject, settings, images, seconds=left, seed=self.options.seed, progress=self._tell
                )
            except ConfigError as error:
                self.notes.append(f"the search starts from no fitted plan: {error}")
                return None
            kept = fitted.info.num_prop
            self.store.keep(FITTED, kept)
        return tuple(kept)

    def _tries_int8(self, dense: Result) -> bool:
        """Whether plans are tried in int8: the dense model first, so that a fault of the images ends no long search."""
        if not self.options.int8 or self.deadline.is_over:
            return False
        if self.graphs.calibration is None:
            self.notes.append(f"{INT8} is not tried: no images to calibrate it on; give --calib-data DIR")
            return False
        try:
            self._quantized(dense)
        except (LimitError, ImageError, ConversionError, BackendMissingError, DeviceError) as error:
            if self.options.calib_data is not None and not isinstance(error, BackendMissingError | DeviceError):
                raise
            self.notes.append(f"{INT8} is not tried: {error}")
            return False
        return True

    def _in_int8(self, results: Sequence[Result]) -> list[Result]:
        """Return each plan on the front in int8, those that keep the limit first, as far as the time allows."""
        best = front(results)
        plans = {_lowered(one).identity: one for one in [*self.options.limit.ranked(best), *best]}
        tried: list[Result] = []
        for one in plans.values():
            if self.deadline.is_over and self.store.results(_kept_name(one)) is None:
                continue
            tried.append(self._quantized(one))
        if len(tried) < len(plans):
            self.notes.append(
                f"the time was up before {len(plans) - len(tried)} of the {len(plans)} plans on the front were tried "
                f"in {INT8}: the same command with more time resumes"
            )
        return tried

    def _quantized(self, result: Result) -> Result:
        """Return the plan of a result in int8: timed and judged on the images of the search, or why it is refused."""
        kept = self.store.results(_kept_name(result))
        if kept is None:
            kept = [self._measured(self._of(_lowered(result)))]
            self.store.keep_results(_kept_name(result), kept)
        return kept[0]

    def _measured(self, candidate: Candidate) -> Result:
        self.progress(f"quantising {candidate.label}")
        result = Result.of(candidate)
        try:
            self.graphs.graph(candidate)
        except QuantizationFailedError as error:
            missed = dict.fromkeys(problem for report in error.reports for problem in report.problems)
            return replace(result, why=f"refused by the gate of {INT8}: {'; '.join(missed)}")
        except ConversionError as error:
            return replace(result, why=str(error))
        self.timer.check(candidate)
        part = self.split.search.part(slice(GRAPH_IMAGES))
        loss = self.timer.losses([candidate], part, self._tell)[0]
        return replace(result, timing=self.timer.time(candidate), loss=loss)

    def _untried(self) -> str:
        return (
            f"no trial ended within --timeout {self.options.seconds or 0:g}s: what was measured is kept in "
            f"{self.output}, and the same command with more time, or with fewer --images, resumes from there"
        )

    def _is_dense_enough(self) -> bool:
        """Whether the dense model keeps the latency that is wanted, so that nothing nearer to it can be found."""
        budget, timing = self.options.limit.latency_ms, self.base_timing
        return budget is not None and timing.dense_ms <= ROOM * budget

    @property
    def base_timing(self) -> Timing:
        """The timing of the recipe's default, beside dense."""
        results = self.store.results(DEFAULT)
        assert results is not None and results[1].timing is not None
        return results[1].timing

    def _candidate(self, name: str, settings: Any) -> Candidate:
        return self.graphs.candidate(name, settings, self.options.running, self.options.batch)

    def _of(self, result: Result) -> Candidate:
        """Return the candidate of a result."""
        running = self.options.running.in_precision(result.precision)
        return self.graphs.candidate(result.name, result.made_settings(), running, self.options.batch)

    def _key(self, images: ImageSet) -> dict[str, Any]:
        """What the results of a search depend on."""
        options = self.options
        device = self.workers.on_device(describe_machine, [options.running.backend])
        recipe, manifest = self.source.recipe, manifest_of(self.graphs.subject)
        return figures_key(recipe, manifest, images, self.graphs.calibration, device) | {
            "searched": len(self.split.search),
            "seed": options.seed,
            "precisions": list(options.precisions),
            "batch": options.batch,
            "backend": [options.running.backend, *map(str, sorted(options.running.options.items()))],
        }

    def _measure_default(self) -> list[Result]:
        """Judge and time the dense model and the recipe's default."""
        self.progress("measuring the recipe's default")
        timing = self.timer.time(self.default)
        loss, distances = self.judge.judge_all(self.default.settings)
        default = Result.of(self.default, loss=loss, timing=timing, rungs=distances, estimate=timing.ratio)
        dense = Result.of(self.dense, loss=Loss.of_dense(loss), timing=_dense_timing(timing), estimate=1.0)
        results = [replace(dense, rungs=[0.0] * len(rungs(len(self.split.search)))), default]
        self.store.keep_results(DEFAULT, results)
        return results

    def _finish(self, search: Search, lowered: Sequence[Result]) -> Outcome:
        """Time the best again in turn, choose, and validate the choice; what is chosen is never slower than dense."""
        options, limit = self.options, self.options.limit
        results = self._timed_again([*search.results, *lowered])
        dense, default = results[:2]
        last = [one for one in results if one.identity in self.finals]
        choices, betters = limit.ranked(last), beating(last, default)
        self.proven: dict[str, Result] = {}
        self._prove([default, *choices[:1], *betters[:1]])
        base = self._proven(default)
        chosen = first_that_holds(choices, lambda one: limit.is_kept(self._proven(one)))
        better = first_that_holds(betters, lambda one: self._proven(one).is_better(base))
        named = {"default": default, "chosen": chosen, "better": better}
        timed = list(filter(is_timed, results))
        return Outcome(
            recipe=self._own_weights(),
            directory=self.output,
            limit=limit,
            running=options.running,
            search_images=len(self.split.search),
            origin=one_line(self.split.search.folder.name),
            trials=len(search.trials),
            results=results,
            front=front(timed),
            chosen=chosen,
            better=better,
            nearest=None if chosen is not None else limit.nearest(last),
            validated={name: self._proven(one) for name, one in named.items() if one is not None},
            notes=[*self.notes, *notes_of([dense, *(one for one in timed if one.identity in self.finals)], limit)],
        )

    def _timed_again(self, results: Sequence[Result]) -> list[Result]:
        """Return the results with new timings of dense and the best, which are exported again where they have to be."""
        most = 1 if self.deadline.is_over else FINALISTS
        dense, default = results[:2]
        best = finalists(results, self.options.limit, default, most)
        others = different(one for one in best if not _is_dense(one))
        self.progress("timing the best again, in turn with dense")
        timings = self.timer.time_all([self._of(one) for one in others])
        again = {one.identity: timing for one, timing in zip(others, timings, strict=True)}
        again[dense.identity] = _dense_timing(timings[0])
        self.finals = set(again)
        return [replace(one, timing=again.get(one.identity, one.timing)) for one in results]

    def _proven(self, result: Result) -> Result:
        """Return a result as it is on the images that were held out."""
        self._prove([result])
        return self.proven[result.identity]

    def _prove(self, results: Iterable[Result]) -> None:
        """Run the graphs of results on the images that were held out, in one reading, and time them beside dense."""
        new = different(one for one in results if one.identity not in self.proven)
        if not new:
            return
        self.progress("validating on images that the search never saw")
        others = [self._of(one) for one in new if not _is_dense(one)] or [self.default]
        losses = self.timer.losses(others, self.split.held_out, self._tell)
        timings = self.timer.time_all(others)
        dense = Loss.of_dense(losses[0]), _dense_timing(timings[0])
        measured = dict(zip((candidate.name for candidate in others), zip(losses, timings, strict=True), strict=True))
        for one in new:
            loss, timing = measured.get(one.name, dense)
            self.proven[one.identity] = replace(one, loss=loss, timing=timing)

    def _tell(self, task: str, share: float | None = None) -> None:
        """Progress of other tasks than the search, whose shares count no trials."""
        self.progress(task, share if task == TASK else None)

    def _own_weights(self) -> Recipe:
        """Return the recipe with the weights that were used, so that an export of it needs no --weights."""
        built = self.graphs.subject.built
        return replace(self.source.recipe, weights=built.path) if built.source == "file" else self.source.recipe


def _is_dense(result: Result) -> bool:
    """Whether it is the model that all are timed beside."""
    return result.method == DENSE and result.precision == PLAIN


def _lowered(result: Result) -> Result:
    """Return what a plan is called in int8."""
    return replace(result, name=f"{result.name}, {INT8}", precision=INT8)


def _kept_name(result: Result) -> str:
    """The name under which a store keeps the plan of a result in int8."""
    return f"{INT8} of {result.name}"


def _dense_timing(beside: Timing) -> Timing:
    return Timing(beside.dense_ms, beside.dense_ms)
