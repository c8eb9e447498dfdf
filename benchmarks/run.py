"""Measures a grid and writes its page: accuracy, latency, results or precision.

    python benchmarks/run.py PAGE [MODEL ...] [--data DIR] [--weights FILE] [--calib-data DIR] [--batch 8]
                             [--amounts 0.75,0.5] [--groups ...] [--methods ...] [--parts ...] [--backends ...]
                             [--precisions ...] [--limit N] [--seconds S] [--loads N] [--again] [--output FILE]

What each page measures stands in grids.py, and --help lists its values. MODEL is a recipe, timm:NAME or a recipe file.
DIR holds one sub-folder per class; without it, the images are the recipe's own. Results are kept in OUTPUT.jsonl as
they are measured. What is there is not measured again (``--again`` does), so a run that was stopped resumes, models,
parts and precisions can be measured in runs of their own, and a run with nothing to measure writes the page alone.
Writes OUTPUT.jsonl, OUTPUT.md and plots beside it.
"""

import argparse
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from bench import EAGER, PARTS, Bench, Case
from grids import GRIDS, Choice, Grid
from pages import PAGES, Measured

from gtp_exporters.measuring.candidate import Running
from gtp_exporters.measuring.graphs import Source
from gtp_exporters.measuring.result import Result
from gtp_exporters.measuring.store import Store
from gtp_models import ConfigError, load_recipe
from gtp_models.schedules import FITTED, is_fitted
from gtp_models.weights import outline
from gtp_runtime.atomic import write_bytes
from gtp_runtime.errors import DeviceError, RandomWeightsWarning

RESULTS = Path(__file__).parent / "results"
PATHS = {"data": "DIR", "calib_data": "DIR", "weights": "FILE"}  # whose values a page does not show
Turn = tuple[str, list[Case]]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pages = parser.add_subparsers(dest="page", required=True)
    for page, grid in GRIDS.items():
        _add_options(pages.add_parser(page, help=f"{', '.join(grid.parts)} of {', '.join(grid.groups)}"), page, grid)
    return parser.parse_args(arguments)


def _add_options(parser: argparse.ArgumentParser, page: str, grid: Grid) -> None:
    def words(name: str, default: Sequence[Any], text: str) -> None:
        shown = ",".join(map(str, default))
        parser.add_argument(name, type=lambda value: value.split(","), default=list(default), help=f"{text} ({shown})")

    parser.add_argument("models", nargs="*", default=list(grid.models), metavar="MODEL", help=" ".join(grid.models))
    parser.add_argument("--data", type=Path, help="test images, one sub-folder per class (the recipe's own)")
    parser.add_argument("--calib-data", type=Path, help="images to calibrate on (the recipe's own)")
    parser.add_argument("--weights", default=grid.weights, help=f"pretrained, random or a file ({grid.weights})")
    words("--amounts", grid.amounts, grid.budget)
    words("--groups", list(grid.groups), "groups of cases")
    words("--parts", grid.parts, "what is measured")
    words("--backends", list(dict.fromkeys(running.backend for running in grid.runnings)), "runtimes")
    words("--precisions", list(dict.fromkeys(running.precision for running in grid.runnings)), "precisions")
    words("--methods", [], "cases, all without")
    parser.add_argument("--batch", type=int, default=1, help="images a run (1)")
    parser.add_argument("--limit", type=int, default=10_000, help="test images at most, spread over the folder (10000)")
    parser.add_argument("--seconds", type=float, default=grid.seconds, help=f"of timing in turn ({grid.seconds:g})")
    parser.add_argument("--loads", type=int, default=grid.loads, help=f"loadings; the middle counts ({grid.loads})")
    parser.add_argument("--again", action="store_true", help="measure again what is there")
    parser.add_argument(
        "--output", type=Path, help=f"(benchmarks/results/{grid.output.format(page=page, name='NAME')})"
    )


def command(options: argparse.Namespace, model: str) -> str:
    """Return what measures one model so, without paths of this machine."""
    plain = vars(parse([options.page]))
    shown = [f"python benchmarks/run.py {options.page} {model}"]
    for name, value in vars(options).items():
        if name not in ("page", "models", "output", "again") and value != plain[name]:
            known = name == "weights" and value in ("pretrained", "random")
            text = ",".join(map(str, value)) if isinstance(value, list) else value
            shown.append(f"--{name.replace('_', '-')} {text if known else PATHS.get(name, text)}")
    return " ".join(shown)


def turns(grid: Grid, choice: Choice, part: str, options: argparse.Namespace) -> Iterator[Turn]:
    """Yield the cases that are measured in turn with each other, with a name for them."""
    for group in options.groups:
        series: list[Turn] = []
        for amount in options.amounts:
            value = type(grid.amounts[0])(amount)
            cases = [
                Case(name, settings, {grid.budget: value}, group)
                for name, settings in grid.groups[group](choice, value)
                if not options.methods or name in options.methods
            ]
            series.append((f"{group} {value}", cases))
        if grid.is_together or part == "thresholds":
            together = " ".join([group, *map(str, options.amounts)])
            series = [(together, [case for _, cases in series for case in cases])]
        yield from (turn for turn in series if turn[1])
        if part == "thresholds":
            return


def measure(grid: Grid, bench: Bench, name: str, store: Store, options: argparse.Namespace) -> None:
    """Measure what a grid has for a model, a turn after another; each is kept when it is done."""
    chosen = [
        running
        for running in grid.runnings
        if running.backend in options.backends and running.precision in options.precisions
    ]
    choice = Choice(bench.source.recipe, outline(bench.source.recipe))
    for part in options.parts:
        runnings = [Running()] if part in EAGER else chosen
        for label, unfitted in turns(grid, choice, part, options):
            places = {"/".join([name, part, "eager" if part in EAGER else one.label, label]): one for one in runnings}
            missing = {where: one for where, one in places.items() if options.again or where not in store.values}
            cases = _fitted(bench, unfitted, name, store, options.again) if missing else []
            for where, running in missing.items() if cases else ():
                print(where, flush=True)
                store.keep(where, [_plain(row) for row in _rows(bench, part, cases, running)])
            if not grid.is_together:
                bench.remove(cases, chosen)


def _fitted(bench: Bench, cases: Sequence[Case], name: str, store: Store, again: bool) -> list[Case]:
    """Return the cases with fitted schedules, which the store keeps; those that cannot be fitted are named."""
    fitted = []
    for case in cases:
        try:
            fitted.append(_placed(bench, case, name, store, again) if is_fitted(case.settings.schedule) else case)
        except ConfigError as error:
            print(f"skipped {case.name} at {dict(case.budget)}: {error}", flush=True)
    return fitted


def _placed(bench: Bench, case: Case, name: str, store: Store, again: bool) -> Case:
    where = "/".join([name, FITTED, case.name, *map(str, case.budget.values())])
    if again or where not in store.values:
        print(where, flush=True)
        store.keep(where, bench.fit(case.settings))
    return replace(case, settings=case.settings.resolved(tuple(store.values[where])))


def _rows(bench: Bench, part: str, cases: Sequence[Case], running: Running) -> list[Any]:
    try:
        return PARTS[part](bench, cases, running)
    except (ConfigError, DeviceError) as error:  # a precision that this machine lacks
        print(f"skipped {part}: {error}", flush=True)
        return []


def _plain(row: Any) -> dict[str, Any]:
    return asdict(row) if isinstance(row, Result) else dict(row)


def measured(store: Store) -> list[Measured]:
    """Return what a store holds, model by model; of what was measured twice, the later."""
    models: dict[str, Measured] = {}
    rows: dict[tuple[Any, ...], Result] = {}
    for name, value in store.values.items():
        model, part = name.split("/")[:2]
        entry = models.setdefault(model, Measured(model))
        if part == "about":
            models[model] = replace(entry, title=value["title"], commands=value["commands"])
        elif part == FITTED:
            continue
        elif part == "thresholds":
            entry.thresholds[:] = value
        else:
            for row in msgspec.convert(value, list[Result]):
                rows[model, part, row.backend, row.precision, row.name, str(row.budget)] = row
    for (model, part, *_), row in rows.items():
        models[model].parts.setdefault(part, []).append(row)
    return list(models.values())


def keep_about(store: Store, name: str, title: str, line: str) -> None:
    """Keep a model's title, and the commands that measured it."""
    kept = store.values.get(f"{name}/about", {"commands": []})
    if line not in kept["commands"]:
        store.keep(f"{name}/about", {"title": title, "commands": [*kept["commands"], line]})


def run(options: argparse.Namespace, model: str) -> None:
    """Measure one model, and write the page with what is known of all."""
    grid, recipe = GRIDS[options.page], load_recipe(model)
    default = RESULTS / grid.output.format(page=options.page, name=recipe.name)
    output: Path = options.output or (
        default if options.batch == 1 else default.with_name(f"{default.name}-batch{options.batch}")
    )
    store = Store(output.with_suffix(".jsonl"), {"page": options.page, "batch": options.batch})
    known = list(store.values)
    with tempfile.TemporaryDirectory() as place:
        source, timing = Source(recipe, options.weights), {"seconds": options.seconds, "loads": options.loads}
        images = {"data": options.data, "calib_data": options.calib_data, "limit": options.limit}
        how = {"batch": options.batch, "is_beside_fp32": grid.is_beside_fp32}
        measure(grid, Bench(source, Path(place), **images, **timing, **how), recipe.name, store, options)
    if list(store.values) != known or options.again:
        keep_about(store, recipe.name, recipe.title, command(options, model))
    files = PAGES[options.page](measured(store), output.name, options.batch)
    for name, text in files.items():
        write_bytes(output.with_name(name), text.encode())


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    warnings.simplefilter("ignore", RandomWeightsWarning)
    torch.set_num_threads(1)
    for model in options.models:
        run(options, model)


if __name__ == "__main__":
    main()
