"""``compare``: from a model to the rows of its comparison."""

from collections.abc import Sequence
from pathlib import Path

from gtp_exporters.comparing.cases import Cases, plan_cases
from gtp_exporters.comparing.graphs import Graphs
from gtp_exporters.comparing.measuring import Measuring
from gtp_exporters.comparing.methods import check_names, default_names
from gtp_exporters.comparing.options import CompareOptions
from gtp_exporters.comparing.output import check_output, write
from gtp_exporters.comparing.parts import measure_all, possible_runs
from gtp_exporters.comparing.published import read_published
from gtp_exporters.comparing.rows import Comparison, with_front
from gtp_exporters.comparing.runs import Run, make_runs
from gtp_exporters.comparing.work import Work, working
from gtp_exporters.errors import LimitError
from gtp_exporters.figures_key import figures_key
from gtp_exporters.graph.describe import tool_versions
from gtp_models.recipes import Recipe, load_recipe
from gtp_models.weights import outline
from gtp_runtime import find_image_set, read_manifest
from gtp_runtime.fleet import Fleet
from gtp_runtime.images.folders import image_names
from gtp_runtime.machine import describe_machine
from gtp_runtime.precisions import PRECISIONS
from gtp_runtime.progress import Progress, quiet


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

    One that was stopped goes on where it was, if it is started again with the same arguments.

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
        ImageError, NoClassesError, ModelsError, GTPRuntimeError: errors of images, models and backends.
    """
    options = options or CompareOptions()
    recipe = load_recipe(model, img_size) if isinstance(model, str) else model.sized(img_size)
    directory = Path(output) if output else default_output(recipe.name)
    names = default_names() if options.methods is None else tuple(dict.fromkeys(options.methods))
    check_names(names)
    check_output(directory)
    runs = make_runs(options.backends, options.precisions, options.backend_options, {"threads": 1})
    folder = _images(recipe, options)
    _check_calibration(recipe, options, runs)
    cases = plan_cases(recipe, outline(recipe), names, options.budgets)
    with working(directory) as work:
        graphs = Graphs(
            work.graphs, recipe, weights, seed, options.batch, options.calib_data, _threads(options), progress
        )
        comparison = _compare(recipe, cases, runs, folder, options, graphs, work, fleet)
        write(comparison, directory)
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


def _check_calibration(recipe: Recipe, options: CompareOptions, runs: Sequence[Run]) -> None:
    calibrated = [run.form.precision for run in runs if PRECISIONS[run.form.precision].calibrated]
    if calibrated and options.calib_data is None and recipe.calibration is None:
        raise LimitError(
            f"{recipe.name} has no images of its own to calibrate {calibrated[0]} on: give --calib-data DIR"
        )
    if options.calib_data is not None and not calibrated:
        raise LimitError("calib_data has no effect: none of the precisions is calibrated")


def _threads(options: CompareOptions) -> int:
    return int(options.backend_options.get("threads", 1))


def _compare(
    recipe: Recipe,
    cases: Cases,
    runs: list[Run],
    folder: Path,
    options: CompareOptions,
    graphs: Graphs,
    work: Work,
    fleet: Fleet | None,
) -> Comparison:
    first = graphs.graph(cases.dense, runs[0].form)
    manifest = read_manifest(first.parent)
    runs, skipped = possible_runs(runs, cases.dense, graphs)
    images = find_image_set(folder, manifest, options.labels, by_order=options.by_order)
    images = images if options.limit is None else images.spread(options.limit)
    measuring = Measuring(
        graphs=graphs,
        images=images,
        kept=work.evaluations,
        seconds=options.seconds,
        rounds=options.rounds,
        workers=options.workers,
        footprint=options.footprint,
        progress=graphs.progress,
        fleet=fleet,
    )
    backends = sorted({run.backend for run in runs})
    device = describe_machine(backends) if fleet is None else fleet.on_device(describe_machine, backends)
    key = figures_key(recipe, manifest, images, options.calib_data or recipe.calibration, device)
    own = {name: getattr(options, name) for name in ("batch", "seconds", "rounds", "footprint")}
    work.open(key | own | {"dense": manifest.files[first.name].sha256, "on_a_fleet": fleet is not None})
    rows = measure_all(cases, runs, options.budgets, measuring, work)
    return Comparison(
        model=recipe.name,
        title=recipe.title,
        timm=recipe.timm,
        weights=f"{manifest.weights.source} ({manifest.weights.detail})",
        data="the recipe's own" if options.data is None else folder.resolve().name,
        images=rows[0].images,
        unreadable=rows[0].unreadable,
        batch=options.batch,
        seconds=options.seconds,
        rounds=options.rounds,
        options={run.backend: dict(run.options) for run in runs if run.is_baseline},
        tools=tool_versions(),
        rows=with_front(rows),
        skipped=[*cases.skipped, *skipped],
        sources=read_published(recipe).sources,
    )
