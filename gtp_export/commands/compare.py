"""``gtp-export compare``: token reduction methods beside the dense model, in one table and a plot."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gtp_export import console
from gtp_export.measuring_options import MeasuringOptions, takes_measuring_options
from gtp_export.model_options import ModelOptions, takes_model_options
from gtp_export.options import Json, Model, Seed, Workers, load_torch, option
from gtp_export.running import MEASURED, fleet_document, given_options, joined_fleet, show_fleet
from gtp_export.values import seconds as read_seconds
from gtp_exporters.measuring.candidate import measured_backends
from gtp_exporters.measuring.comparison import SPECIAL
from gtp_runtime.precisions import PRECISIONS

if TYPE_CHECKING:
    from gtp_exporters.measuring.comparison import Budget, Comparison
    from gtp_exporters.measuring.result import Result

BACKENDS = ", ".join(measured_backends())
Number = TypeVar("Number", int, float)
METHODS = f"{', '.join(SPECIAL)}, gtp (the recipe's own settings), or another of gtp-export methods"


@takes_model_options()
@takes_measuring_options()
def compare(
    model: Model,
    methods: Annotated[str | None, option(f"{METHODS} (default: all but published and gtp).")] = None,
    budgets: Annotated[str | None, option("Shares of the dense model's MACs (default: 0.85,0.75,0.6).")] = None,
    num_prop: Annotated[str | None, option("Instead of --budgets: tokens removed in every layer, 4,8,12.")] = None,
    backends: Annotated[str, typer.Option(help=f"What runs the graphs: {BACKENDS}.")] = "onnxruntime",
    precisions: Annotated[str, typer.Option(help=f"{', '.join(PRECISIONS)}.")] = "fp32",
    directory: Annotated[
        Path | None,
        option(
            "Directory for compare.json, compare.md and compare.svg (default: build/MODEL-compare). What was "
            "interrupted resumes from it.",
            "-o",
            "--out",
        ),
    ] = None,
    limit: Annotated[int | None, option("Maximum number of images, spread over the folder.", min=1)] = None,
    workers: Workers = None,
    seconds: Annotated[
        float,
        option(
            "Time of each round, for all files of a budget: 3, 500ms, 1m (default: 3s).",
            parser=read_seconds,
            metavar="TIME",
        ),
    ] = 3.0,
    rounds: Annotated[
        int, typer.Option(help="Rounds of timing, each in new sessions; the median is shown.", min=1)
    ] = 3,
    footprint: Annotated[bool, typer.Option(help="Also measure peak memory, in separate processes.")] = True,
    seed: Seed = None,
    *,
    measuring: MeasuringOptions,
    model_options: ModelOptions,
    json: Json = False,
) -> None:
    """Compare methods with the dense model: accuracy, distance, latency and size, as a table and a plot.

    The distance is the divergence of classes; of features, patches and maps their relative error.
    """
    if budgets is not None and num_prop is not None:
        raise typer.BadParameter("--budgets and --num-prop both say how much is removed: give one of the two")
    weights, data = measuring.weights, measuring.data
    if seed is not None and weights not in ("random", "auto"):
        raise typer.BadParameter(f"--seed has no effect with --weights {weights}: it is for random weights")
    measuring.check(model)
    from gtp_exporters import CompareOptions

    threads = MEASURED if measuring.threads is None else measuring.threads
    options = CompareOptions(
        methods=None if methods is None else _words(methods),
        budgets=_budgets(budgets, num_prop),
        backends=_words(backends),
        precisions=_words(precisions),
        data=data,
        labels=measuring.labels,
        limit=limit,
        workers=workers,
        batch=measuring.batch,
        calib_data=measuring.calib_data,
        seconds=seconds,
        rounds=rounds,
        footprint=footprint,
        backend_options=given_options(threads=threads, provider=measuring.provider),
        **measuring.asked,
    )
    with console.progress("comparing", _count(data, limit)) as update:
        load_torch(update)
        from gtp_exporters import compare as run

        recipe = measuring.recipe(model, model_options)
        with joined_fleet(measuring.ray, data or recipe.images, device=True) as fleet:
            comparison = run(
                recipe, directory, options=options, weights=weights, seed=seed or 0, fleet=fleet, progress=update
            )
    if json:
        console.emit(comparison.to_dict() | fleet_document(fleet))
    else:
        show_fleet(fleet)
        _show(comparison, directory)
        words = replace(measuring, output="auto", layers=()).words(model, model_options, seed)  # rows say them as well
        nearest = _nearest(comparison)
        console.next_command("export", *words, *nearest.command)
        console.then_convert(nearest.convert)


def _count(data: Path | None, limit: int | None) -> int:
    """Return how many images are measured, for the time left; 0 for a recipe's own, which are few."""
    if data is None:
        return 0
    from gtp_runtime.images.folders import image_names

    count = len(image_names(data))
    return count if limit is None else min(limit, count)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _budgets(shares: str | None, amounts: str | None) -> "tuple[Budget, ...]":
    from gtp_exporters.measuring.comparison import BUDGETS, Budget

    if amounts is not None:
        return tuple(Budget(num_prop=number) for number in _numbers(amounts, int, "--num-prop", "4,8,12"))
    if shares is not None:
        return tuple(Budget(keep=number) for number in _numbers(shares, float, "--budgets", "0.85,0.6"))
    return BUDGETS


def _numbers(text: str, kind: Callable[[str], Number], option: str, example: str) -> list[Number]:
    try:
        return [kind(word) for word in _words(text)]
    except ValueError:
        raise typer.BadParameter(f"{option} takes numbers like {example}, not {text!r}") from None


def _show(comparison: "Comparison", output: Path | None) -> None:
    from gtp_exporters.measuring.grid import default_output
    from gtp_exporters.measuring.pages import COMPARED, cells, data, noise_note, shown, title

    console.out.print(f"{comparison.title}: {data(comparison)}", markup=False)
    columns = shown(COMPARED, comparison.rows)
    for backend, precision in comparison.runs():
        rows = cells(columns, comparison.of(backend, precision))
        console.table(title(comparison, backend, precision), [column.head for column in columns], rows)
    for entry in comparison.skipped:
        console.note(f"note: not compared: {entry.what}: {entry.why}")
    if note := noise_note(comparison.rows):
        console.note(f"note: {note}")
    place = output or default_output(comparison.model)
    console.out.print(f"wrote {place}: compare.json compare.md compare.svg", markup=False)


def _nearest(comparison: "Comparison") -> "Result":
    """Return the row nearest to the dense model, of those on the front if any is."""
    rows = [row for row in comparison.rows if row.budget]
    return min(rows, key=lambda row: (not row.is_front, row.distance))
