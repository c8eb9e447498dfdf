"""``gtp-export bench``: latency of several files in interleaved runs, and their size, memory and cold start."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gtp_export import console
from gtp_export.latency_gates import Budget, over_budget, parse_budget, slower_than_dense
from gtp_export.numbers import finite
from gtp_export.options import Json, Quiet, Verbose
from gtp_export.run_options import NOT_KEPT, RunOptions, takes_run_options
from gtp_runtime.errors import BUDGET_MISSED, GTPRuntimeError, InputError
from gtp_runtime.manifest import twin

if TYPE_CHECKING:
    from gtp_runtime import Footprint, Latency, Model
    from gtp_runtime.progress import Progress


@takes_run_options(threads=1)
def bench(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Files or artifact directories. A single one is compared with its dense baseline.", show_default=False
        ),
    ],
    seconds: Annotated[
        float, typer.Option(help="Seconds of timing for all files together, after a warm-up.", min=0, callback=finite)
    ] = 3.0,
    budget_ms: Annotated[
        Budget | None,
        typer.Option(
            help="Fail (exit code 5) if the median of a file is above this, or another percentile: p99:20. It does "
            "not apply to dense files.",
            show_default=False,
            parser=parse_budget,
            metavar="[pNN:]MS",
        ),
    ] = None,
    must_beat_dense: Annotated[
        bool,
        typer.Option("--must-beat-dense", help="Fail (exit code 5) if a file is not faster (p50) than the dense ones."),
    ] = False,
    footprint: Annotated[
        bool, typer.Option(help="Measure peak memory and cold start too, in processes of their own.")
    ] = True,
    *,
    running: RunOptions,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure latency in interleaved runs, relative to the first file; then size, peak memory and cold start."""
    from gtp_export.reports import footprint_table, latency_table
    from gtp_runtime import benchmark
    from gtp_runtime.latency import record_latency

    files = _with_twin(paths, running)
    with ExitStack() as stack:
        models = [stack.enter_context(running.load_file(path)) for path in files]
        dense = [model.entry.role == "dense" for model in models]
        if must_beat_dense and len(set(dense)) < 2:
            raise InputError("--must-beat-dense needs a dense file and another: give dense.onnx as well")
        with console.progress("benchmarking") as update:
            results = benchmark(models, seconds, update)
    if footprint:
        with console.progress("starting processes") as update:
            results = _with_footprints(results, files, running, update)
    kept = record_latency(models, results)
    if json:
        settings = {"backend": running.backend, **running.given, "seconds": seconds}
        backends = [
            {"name": model.backend.name, "options": running.options(model.path), **model.backend.info}
            for model in models
        ]
        console.emit({"settings": settings, "backends": backends, "files": [result.to_dict() for result in results]})
    else:
        latency_table(results, _title(models))
        footprint_table(results)
        console.out.print(f"next: gtp-export validate {models[-1].path}", markup=False)
    if not kept:
        console.note(NOT_KEPT)
    missed = slower_than_dense(results, dense) if must_beat_dense else []
    missed += [] if budget_ms is None else over_budget(results, dense, budget_ms)
    for text in missed:
        console.err.print(f"error: {text}", style="red", markup=False)
    if missed:
        raise typer.Exit(BUDGET_MISSED)


def _with_footprints(
    results: "list[Latency]", files: list[Path], running: RunOptions, update: "Progress"
) -> "list[Latency]":
    found = []
    for done, (result, file) in enumerate(zip(results, files, strict=True)):
        update(f"measuring memory and cold start of {file.name}", done / len(files))
        found.append(replace(result, footprint=_footprint(file, running)))
    return found


def _footprint(file: Path, running: RunOptions) -> "Footprint":
    """Measure a file; where no process can run it, say why and return its size alone."""
    from gtp_runtime.footprint import Footprint, file_bytes, measure_footprint

    try:
        return measure_footprint(file, running.backend, **running.options(file))
    except GTPRuntimeError as error:
        console.note(f"note: memory and cold start of {file} are not measured: {error}")
        return Footprint(file_bytes(file))


def _title(models: "list[Model]") -> str:
    used = dict.fromkeys(f"{model.backend.name} {model.backend.info['version']}" for model in models)
    threads = {model.backend.info["threads"] for model in models if "threads" in model.backend.info}
    said = "".join(f"; {count or 'all'} CPU thread{'' if count == 1 else 's'}" for count in sorted(threads))
    return f"{', '.join(used)}{said}, batch {models[0].batch}"


def _with_twin(paths: list[Path], running: RunOptions) -> list[Path]:
    """Put the dense baseline before a single file, if there is one of the same form: ratios are to the first file."""
    files = [running.file(path) for path in paths]
    if len(files) != 1 or not files[0].exists():
        return files
    path = files[0]
    dense = twin(path)
    return [dense, path] if dense is not None and dense.suffix == path.suffix else [path]
