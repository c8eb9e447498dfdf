"""``compare``: every method at every budget, on every backend in every precision, beside the dense model."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtp_exporters.errors import ConversionError, LimitError
from gtp_exporters.fitting import FittingImages, fit_settings, fitting_images
from gtp_exporters.graph.describe import tool_versions
from gtp_exporters.measuring.accuracy import graph_losses
from gtp_exporters.measuring.candidate import PLAIN, Candidate, Running, make_runnings
from gtp_exporters.measuring.comparison import (
    Case,
    Cases,
    CompareOptions,
    Comparison,
    Skipped,
    check_names,
    default_names,
    plan_cases,
    read_published,
)
from gtp_exporters.measuring.graphs import Graphs, Source, forget, manifest_of, output_words
from gtp_exporters.measuring.latency import footprint_of, share_of, time_plausibly
from gtp_exporters.measuring.pages import check_output, write_comparison
from gtp_exporters.measuring.result import Result, Timing, with_front
from gtp_exporters.measuring.store import Store, figures_key, remove, working
from gtp_models.errors import ConfigError
from gtp_models.methods.settings import Settings
from gtp_models.recipes import Recipe, load_recipe
from gtp_runtime import Footprint, ImageSet, load
from gtp_runtime.errors import BackendMissingError, DeviceError
from gtp_runtime.fleet import Fleet
from gtp_runtime.footprint import file_bytes
from gtp_runtime.images.folders import image_names
from gtp_runtime.machine import describe_machine
from gtp_runtime.messages import Progress, one_line, option_words, quiet
from gtp_runtime.question import ask, images_for

UNMADE = "unmade"  # of the store: why a converter could not make a file, by what it is of


def compare(
    model: str | Recipe,
    output: Path | str | None = None,
    *,
    options: CompareOptions | None = None,
    weights: str = "pretrained",
    img_size: tuple[int, int] | None = None,
    seed: int = 0,
    fleet: Fleet | None = None,
    progress: Progress = quiet,
) -> Comparison:
    """Compare methods with the dense model: accuracy, latency and size on the same images, in one process.

    One that was stopped resumes if it is started again with the same arguments.

    Args:
        model: a recipe, its name, ``timm:NAME`` or a recipe file.
        output: a directory for compare.json, compare.md and compare.svg (default: ``build/NAME-compare``).
        options: what is compared and how.
        weights, img_size, seed: as for ``export``.
        fleet: nodes of a cluster that measure (default: this machine).
        progress: called with the current task.

    Raises:
        ConfigError: no method fits the model and the budgets.
        LimitError: a value that is not allowed, no test images, or no images to calibrate int8 on.
        OutputError: the directory cannot be written, or holds other files of these names.
        BackendMissingError: a backend that is not installed, or none that runs the precisions.
        ImageError, ModelsError, GTPRuntimeError: errors of images, models and backends.
    """
    options = options or CompareOptions()
    recipe = load_recipe(model, img_size) if isinstance(model, str) else model.sized(img_size)
    directory = default_output(recipe.name) if output is None else Path(output)
    source = Source(recipe, weights, seed, output=options.output, layers=options.layers)
    return compare_source(source, directory, options, fleet, progress)


def compare_source(
    source: Source, directory: Path, options: CompareOptions, fleet: Fleet | None = None, progress: Progress = quiet
) -> Comparison:
    """Compare methods in a model; arguments and errors are those of ``compare``."""
    recipe = source.recipe
    has_images = options.calib_data is not None or recipe.calibration is not None
    names = default_names(has_images) if options.methods is None else options.methods
    check_names(names)
    check_output(directory)
    runnings = make_runnings(options.backends, options.precisions, options.backend_options, {"threads": 1})
    folder = _images(recipe, options)
    plan = None if source.taken is None else source.taken.plan
    cases = plan_cases(recipe, source.outline(), names, options.budgets, source.gives, plan)
    _check_calibration(recipe, options, cases, runnings)
    forget()
    with working(directory, "compare") as place:
        grid = _Grid(source, options, cases, runnings, folder, place, fleet, progress)
        try:
            comparison = grid.run()
        except BaseException:
            remove(*([place / "graphs"] if grid.has_results else [place]))
            raise
        write_comparison(comparison, directory)
        remove(place)
    return comparison


def default_output(name: str) -> Path:
    """Return the output directory for a recipe's name."""
    return Path("build") / f"{name}-compare"


def _images(recipe: Recipe, options: CompareOptions) -> Path:
    folder = options.data or recipe.images
    if folder is None:
        raise LimitError(f"{recipe.name} has no test images of its own: give --data DIR, with one sub-folder a class")
    image_names(folder)  # fail early
    return folder


def _check_calibration(recipe: Recipe, options: CompareOptions, cases: Cases, runnings: Sequence[Running]) -> None:
    """Check that there are images for the candidates that need them, and candidates for the images."""
    needing = [
        candidate.label
        for running in runnings
        for case in (cases.dense, *cases.others)
        if (candidate := Candidate(case.method, case.plan, running)).needs_calibration or case.unfitted is not None
    ]
    if needing and options.calib_data is None and recipe.calibration is None:
        raise LimitError(
            f"{recipe.name} has no images of its own to calibrate on, which {needing[0]} needs: give --calib-data DIR"
        )
    if options.calib_data is not None and not needing:
        raise LimitError("calib_data has no effect: nothing that is compared is fitted or calibrated")


@dataclass
class _Grid:
    """A comparison under way, a part after another: a budget on a backend."""

    source: Source
    options: CompareOptions
    cases: Cases
    runnings: list[Running]
    folder: Path
    place: Path
    fleet: Fleet | None
    progress: Progress
    store: Store | None = None

    def __post_init__(self) -> None:
        remove(self.place / "graphs")  # perhaps of another model
        threads = int(self.options.backend_options.get("threads", 1))
        where = self.place / "graphs"
        self.graphs = Graphs(self.source, where, self.options.calib_data, threads, progress=self.progress)
        self.evaluations = self.place / "evaluations"

    @property
    def has_results(self) -> bool:
        """Whether there is something to resume from."""
        return bool(self.store and self.store.values) or any(self.evaluations.glob("*.json"))

    def run(self) -> Comparison:
        """Measure everything that was not measured before."""
        options, recipe = self.options, self.source.recipe
        self.progress(f"building {recipe.timm}")
        subject = self.graphs.subject
        manifest = manifest_of(subject)
        truth: dict[str, Any] = {"masks": options.masks, "depths": options.depths}
        self.question, self.targets = ask(manifest, metric=options.metric, classes_from=options.classes_from, **truth)
        images = images_for(self.folder, manifest, self.question, options.labels)
        self.images: ImageSet = images if options.limit is None else images.spread(options.limit)
        skipped = self._check_runnings()
        backends = sorted({running.backend for running in self.runnings})
        device = describe_machine(backends) if self.fleet is None else self.fleet.on_device(describe_machine, backends)
        key = figures_key(recipe, manifest, self.images, self.graphs.calibration, device)
        own = {name: getattr(options, name) for name in ("batch", "seconds", "rounds", "footprint")}
        asked = [*self.question.key, options.output, list(options.layers)]
        asked += [] if self.targets is None else [self.targets.stamp(self.images)]
        asked += [] if self.source.taken is None else [repr(subject.outputs.whole(subject.model))]
        whole = key | own | {"on a fleet": self.fleet is not None, "measured": asked}
        self.store = Store(self.place / "results.jsonl", whole, is_replaced=True)
        if not self.store.is_resumed:
            remove(self.evaluations)
        self.evaluations.mkdir(parents=True, exist_ok=True)
        self.cases = self._all_fitted()
        rows = self._measure_all()
        unmade = [Skipped(what, why) for what, why in self.store.values.get(UNMADE, {}).items()]
        if not rows:
            raise ConversionError(f"nothing can be converted: {'; '.join(f'{one.what}: {one.why}' for one in unmade)}")
        assert rows[0].loss is not None
        return Comparison(
            model=recipe.name,
            title=recipe.title,
            timm=recipe.timm,
            weights=f"{manifest.weights.source} ({manifest.weights.detail})",
            data="the recipe's own" if options.data is None else one_line(self.folder.resolve().name),
            images=rows[0].loss.images,
            unreadable=rows[0].loss.unreadable,
            batch=options.batch,
            seconds=options.seconds,
            rounds=options.rounds,
            options={run.backend: dict(run.options) for run in self.runnings if run.precision == PLAIN},
            tools=tool_versions(),
            rows=with_front(rows),
            skipped=[*self.cases.skipped, *skipped, *unmade],
            sources=read_published(recipe).sources,
            class_order=self.images.class_order,
            class_folders=self.images.class_folders,
        )

    def _all_fitted(self) -> Cases:
        """Return the cases with fitted schedules; those that no schedule fits are skipped."""
        others, skipped = [], list(self.cases.skipped)
        for case in self.cases.others:
            try:
                others.append(self._fitted(case))
            except ConfigError as error:
                assert case.budget is not None
                skipped.append(Skipped(f"{case.method} at {case.budget.label}", str(error)))
        if not others:
            raise ConfigError(f"no method fits: {'; '.join(f'{entry.what}: {entry.why}' for entry in skipped)}")
        return Cases(self.cases.dense, others, skipped)

    def _fitted(self, case: Case) -> Case:
        """Return a case whose schedule is fitted, on calibration images that are none of those that judge."""
        if case.unfitted is None:
            return case
        assert self.store is not None
        name = json.dumps(["fitted", case.method, case.unfitted.to_dict()])
        num_prop = self.store.values.get(name)
        if num_prop is None:
            num_prop = fit_settings(
                self.graphs.subject, case.unfitted, self._fitting_images(case.unfitted), progress=self._tell(case)
            ).info.num_prop
            self.store.keep(name, num_prop)
        plan = self.graphs.subject.plan(case.unfitted.resolved(tuple(num_prop)))
        calib_data = self.options.calib_data
        images = () if calib_data is None else ("--calib-data", str(calib_data))
        return replace(case, plan=plan, command=(*case.command, *images), unfitted=None)

    def _fitting_images(self, settings: Settings) -> FittingImages:
        own, files = self.options.calib_data is None, map(Path, map(self.images.path, range(len(self.images))))
        return fitting_images(self.graphs.subject, settings, self.graphs.calibration, files=files, is_own=own)

    def _tell(self, case: Case) -> Progress:
        assert case.budget is not None
        what = f"fitting {case.method} at {case.budget.label}"
        return lambda task, share=None: self.progress(f"{what}: {task}")

    def _candidate(self, case: Case, running: Running) -> Candidate:
        return Candidate(case.method, case.plan, running, self.options.batch)

    def _is_wanted(self, running: Running) -> bool:
        return running.precision in self.options.precisions

    def _check_runnings(self) -> list[Skipped]:
        """Keep the runnings whose backend can run the dense model so; return the others with the reason.

        Raises:
            BackendMissingError, LimitError: none that is wanted is left, or float32 is not possible.
        """
        possible: list[Running] = []
        skipped: list[Skipped] = []
        for running in self.runnings:
            try:
                load(
                    self.graphs.graph(self._candidate(self.cases.dense, running)), running.backend, **running.options
                ).close()
                possible.append(running)
            except (BackendMissingError, ConversionError, DeviceError, LimitError) as error:
                is_last = running is self.runnings[-1] and not any(map(self._is_wanted, possible))
                if running.precision == PLAIN or is_last:
                    raise
                skipped.append(Skipped(running.label, str(error)))
        used = {running.backend for running in possible if self._is_wanted(running)}
        self.runnings = [running for running in possible if running.backend in used]
        return skipped

    def _measure_all(self) -> list[Result]:
        """Return all results: those of the dense model first, then by budget."""
        backends = list(dict.fromkeys(running.backend for running in self.runnings))
        budgets = [budget for budget in dict.fromkeys(self.options.budgets) if self.cases.of(budget)]
        parts = [(budget, backend) for budget in budgets for backend in backends]
        results: list[Result] = []
        for number, (budget, backend) in enumerate(parts, 1):
            own = [running for running in self.runnings if running.backend == backend]
            what = f"part {number} of {len(parts)}, {budget.label} on {backend}"
            results += self._part(self.cases.of(budget), own, what)
            if backend == backends[-1]:
                done = [self._candidate(case, running) for case in self.cases.of(budget) for running in self.runnings]
                self.graphs.remove(done)
        dense = [result for result in results if result.name == self.cases.dense.method]
        return [*_merged(dense), *(result for result in results if result not in dense)]

    def _part(self, cases: Sequence[Case], runnings: Sequence[Running], what: str) -> list[Result]:
        """Return the results of the cases of one budget on one backend, and of the dense model beside them."""
        assert self.store is not None
        pairs = [
            (case, running)
            for running in runnings
            for case in ((self.cases.dense, *cases) if self._is_wanted(running) else (self.cases.dense,))
        ]
        candidates = [self._candidate(case, running) for case, running in pairs]
        name = json.dumps([candidate.key for candidate in candidates])
        results = self.store.results(name)
        if results is None:
            made = [(case, one) for (case, _), one in zip(pairs, candidates, strict=True) if self._is_made(case, one)]
            if all(case.budget is None for case, _ in made):
                return []
            results = self.measure([case for case, _ in made], [candidate for _, candidate in made], what)
            self.store.keep_results(name, results)
        return results

    def _is_made(self, case: Case, candidate: Candidate) -> bool:
        """Whether the file of a case can be made; why a converter cannot is kept."""
        try:
            self.graphs.graph(candidate)
        except ConversionError as error:
            if case.budget is None:
                raise
            assert self.store is not None
            unmade = self.store.values.get(UNMADE, {})
            what = f"{case.method} at {case.budget.label} on {candidate.running.label}"
            self.store.keep(UNMADE, unmade | {what: str(error)})
            return False
        return True

    def measure(self, cases: Sequence[Case], candidates: Sequence[Candidate], what: str) -> list[Result]:
        """Measure candidates on one backend; the first is the dense model in float32, which all are compared with."""

        def tell(task: str, share: float | None = None) -> None:
            self.progress(f"{what}: {task}", share)

        options, runnings = self.options, [candidate.running for candidate in candidates]
        files = [self.graphs.graph(candidate) for candidate in candidates]
        tell(f"loading {len(files)} graphs")
        reading: dict[str, Any] = {"threads": options.workers, "resume": self.evaluations}
        reading |= {"question": self.question, "targets": self.targets}
        losses = graph_losses(files, runnings, self.images, tell, workers=self.fleet, **reading)
        tell("timing")
        ratios = [candidate.plan.ratio if candidate.running.precision == PLAIN else None for candidate in candidates]
        timings = time_plausibly(files, runnings, ratios, options.seconds, self.fleet, loads=options.rounds)
        costs = [self._cost(file, running, tell) for file, running in zip(files, runnings, strict=True)]
        dense = {
            candidate.running.label: timing
            for case, candidate, timing in zip(cases, candidates, timings, strict=True)
            if case.budget is None
        }
        results = [
            _result(case, candidate, options, loss=loss, timing=timing, cost=cost, dense=dense[candidate.running.label])
            for case, candidate, loss, timing, cost in zip(cases, candidates, losses, timings, costs, strict=True)
        ]
        is_module = self.source.taken is not None  # which no command exports
        return [replace(result, command=[], convert=[]) for result in results] if is_module else results

    def _cost(self, file: Path, running: Running, progress: Progress) -> Footprint:
        if not self.options.footprint:
            return Footprint(file_bytes(file))
        progress("measuring memory and cold start")
        return footprint_of(file, running, self.fleet)


def _result(
    case: Case, candidate: Candidate, options: CompareOptions, timing: Timing, dense: Timing, **measured: Any
) -> Result:
    return replace(
        Result.of(candidate, timing=timing, **measured),
        settings=candidate.settings.described(),
        share=share_of(timing, dense, candidate.plan.ratio),
        budget={} if case.budget is None else case.budget.values,
        command=[*case.command, *_words(candidate.running, options)],
        convert=_conversion(candidate.running, options),
        published=case.published,
    )


def _words(running: Running, options: CompareOptions) -> list[str]:
    """Return the options of ``gtp-export export`` that write graphs with these outputs, as they are written here."""
    own = output_words(options.output, options.layers)
    if running.written == PLAIN or running.format:
        return own
    return [*own, *option_words(precision=running.written, target=running.target), *_calibrated(running, options)]


def _conversion(running: Running, options: CompareOptions) -> list[str]:
    """Return the options of ``gtp-export convert`` that make its file; none for an ONNX file."""
    return [*running.conversion, *_calibrated(running, options)] if running.format else []


def _calibrated(running: Running, options: CompareOptions) -> list[str]:
    """Return the option that says what int8 was calibrated on; none for the recipe's own images."""
    return option_words(calib_data=options.calib_data if running.is_calibrated else None)


def _merged(dense: Sequence[Result]) -> list[Result]:
    """Return one result of the dense model for each backend and precision: it was timed anew in every part."""
    runs: dict[tuple[str, str], list[Result]] = {}
    for result in dense:
        runs.setdefault((result.backend, result.precision), []).append(result)
    return [replace(results[0], timing=_median(results)) for results in runs.values()]


def _median(results: Sequence[Result]) -> Timing:
    timings = [result.timing for result in results if result.timing is not None]
    p50, ratio = (statistics.median(getattr(timing, name) for timing in timings) for name in ("p50_ms", "ratio"))
    return Timing(p50, p50 / ratio, statistics.median(timing.spread for timing in timings))
