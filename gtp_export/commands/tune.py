"""``gtp-export tune``: search for the settings that keep a limit, and prove them on other images."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gtp_export import console
from gtp_export.measuring_options import MeasuringOptions, takes_measuring_options
from gtp_export.model_options import ModelOptions, takes_model_options
from gtp_export.options import Json, Model, load_torch, option
from gtp_export.running import (
    MEASURED,
    Backend,
    Compute,
    RunOptions,
    fleet_document,
    given_options,
    joined_fleet,
    show_fleet,
)
from gtp_export.values import finite, milliseconds, positive_seconds
from gtp_exporters.measuring.candidate import DENSE, INT8, PLAIN, file_for, running_on
from gtp_runtime.errors import BUDGET_MISSED, GATE_FAILED
from gtp_runtime.messages import option_words
from gtp_runtime.precisions import converted_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gtp_exporters.measuring.outcome import Outcome
    from gtp_exporters.measuring.pages import Column
    from gtp_exporters.measuring.result import Result


@takes_model_options()
@takes_measuring_options()
def tune(
    model: Model,
    directory: Annotated[
        Path,
        typer.Option("-o", "--out", help="Directory of the search; an earlier search there is resumed."),
    ],
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Find the fastest settings that lose at most this many percentage points of top-1 against dense.",
            min=0,
            show_default=False,
            callback=finite,
        ),
    ] = None,
    max_distance: Annotated[
        float | None,
        typer.Option(
            help="Find the fastest settings that are at most this far from dense, in the unit of the metric: nats of "
            "divergence for logits, the relative error for features, patches and maps.",
            min=0,
            show_default=False,
            callback=finite,
        ),
    ] = None,
    latency_budget: Annotated[
        float | None,
        option(
            "Find the settings closest to dense whose median latency is at most this: 20, 20ms.",
            "--latency-budget",
            "--budget-ms",
            parser=milliseconds,
            metavar="TIME",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="Number of trials, those of an earlier search included.", min=1)] = 100,
    timeout: Annotated[
        float | None,
        option("Try nothing further after this time: 300s, 10min, 2h.", parser=positive_seconds, metavar="TIME"),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of images for the search (default: all but the third that is held out); at most "
            "twice as many are held out.",
            min=1,
            show_default=False,
        ),
    ] = None,
    precisions: Annotated[
        str, typer.Option(help=f"Precisions of the graphs that are tried: {', '.join(converted_names('onnxruntime'))}.")
    ] = "fp32",
    int8: Annotated[
        bool, typer.Option(help="Then try what is on the front in int8, where there are images to calibrate it on.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of the search, and of random weights.", min=0)] = 0,
    backend: Backend = "auto",
    compute: Compute = None,
    *,
    measuring: MeasuringOptions,
    model_options: ModelOptions,
    json: Json = False,
) -> None:
    """Search for settings of MODEL within a limit on accuracy, distance or latency; all are measured."""
    limit = (max_drop, latency_budget, max_distance)
    count = sum(value is not None for value in limit)
    if count != 1:
        raise typer.BadParameter(f"give one of --max-drop, --max-distance and --latency-budget: {count} were given")
    measuring.check(model)
    from gtp_exporters.measuring.choice import Limit, TuneOptions

    run_options = given_options(threads=measuring.threads, provider=measuring.provider, compute=compute)
    running, file = RunOptions(backend, run_options, {"threads": MEASURED}), file_for(backend)
    data = measuring.data
    options = TuneOptions(
        limit=Limit(*limit),
        data=data if measuring.ray is None or data is None else data.resolve(),
        labels=measuring.labels,
        trials=trials,
        seconds=timeout,
        images=images,
        precisions=tuple(part.strip() for part in precisions.split(",")),
        int8=int8,
        calib_data=measuring.calib_data,
        batch=measuring.batch,
        running=running_on(running.spec(file).name, running.options_of(file)),
        seed=seed,
        **measuring.asked,
    )
    with console.progress("tuning", trials, unit="trials", seconds=timeout) as update:
        load_torch(update)
        from gtp_exporters.measuring.tune import tune as run

        recipe = measuring.recipe(model, model_options)
        with joined_fleet(measuring.ray, options.data or recipe.images, device=True) as fleet:
            outcome = run(
                recipe, directory, options, weights=measuring.weights, seed=seed, workers=fleet, progress=update
            )
    if json:
        console.emit(outcome.to_dict() | fleet_document(fleet))
    else:
        show_fleet(fleet)
        _show(outcome)
        if not outcome.problem:
            words = measuring.words(model, model_options, seed)
            console.next_command("export", *_next(outcome, measuring, words, seed))
            console.then_convert(_conversion(outcome, measuring))
    if outcome.problem:
        console.err.print(f"error: {outcome.problem}", style="red", markup=False)
        raise typer.Exit(GATE_FAILED if latency_budget is None else BUDGET_MISSED)


def _show(outcome: "Outcome") -> None:
    from gtp_exporters.measuring.outcome import PAGE, RECIPE
    from gtp_exporters.measuring.pages import SEARCHED, VALIDATED

    proven = outcome.shown_validated
    images = proven[0].loss.images if proven[0].loss is not None else 0
    title = f"front of {outcome.trials} trials on {outcome.search_images} images of {outcome.origin}"
    _table(title, SEARCHED, outcome.shown)
    _table(f"the exported graphs on {images} images that the search never saw, timed in turn", VALIDATED, proven)
    console.out.print(_verdict(outcome), markup=False)
    for note in outcome.notes:
        console.note(f"note: {note}")
    if outcome.problem:
        console.out.print(f"next: open {shlex.quote(str(outcome.directory / PAGE))}", markup=False)
        return
    recipe = "" if outcome.is_dense else f", {RECIPE}"
    console.out.print(f"wrote {outcome.directory}: {PAGE}{recipe}", markup=False)


def _next(outcome: "Outcome", measuring: MeasuringOptions, model: list[str], seed: int) -> list[str]:
    """Return what ``export`` takes to make the choice; ``model`` is MODEL with its options, for the dense one."""
    from gtp_exporters.measuring.outcome import RECIPE

    assert outcome.chosen is not None
    chosen, weights = outcome.chosen, list[str]()  # a recipe names its weights file
    if measuring.weights == "random" or (measuring.weights == "auto" and outcome.recipe.weights is None):
        weights = option_words(weights=measuring.weights, seed=seed or None)
    precision: dict[str, Any] = {}
    if chosen.precision != PLAIN and not chosen.convert:
        precision = {"precision": chosen.precision, "target": outcome.running.target}
        if chosen.precision == INT8:
            precision |= {"calib_data": measuring.calib_data}
    if outcome.is_dense:
        return [*model, "--method", DENSE, *option_words(**precision)]
    own = [*measuring.output_words, *option_words(batch=measuring.other_batch, **precision)]
    return [str(outcome.directory / RECIPE), *weights, *own]


def _conversion(outcome: "Outcome", measuring: MeasuringOptions) -> list[str]:
    """Return what ``convert`` takes to make the choice of that export; nothing for an ONNX file."""
    assert outcome.chosen is not None
    calib_data = measuring.calib_data if outcome.chosen.precision == INT8 else None
    return [*outcome.chosen.convert, *option_words(calib_data=calib_data)] if outcome.chosen.convert else []


def _table(title: str, columns: "Sequence[Column]", results: "Sequence[Result]") -> None:
    from gtp_exporters.measuring.pages import cells, shown

    chosen = shown(columns, results)
    console.table(title, [column.head for column in chosen], cells(chosen, results))


def _verdict(outcome: "Outcome") -> str:
    """Return whether something beats the recipe's default on both axes, in a line."""
    if outcome.better is None:
        return "nothing that was timed loses less than the recipe's default and is faster"
    held = "also" if outcome.better_holds else "but not"
    return (
        f"{outcome.better.name} loses less than the recipe's default and is faster on the images of the search, "
        f"{held} on those that were held out"
    )
