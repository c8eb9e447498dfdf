"""``gtp-export bench``: latency of several files in interleaved runs, and their size, memory and cold start."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gtp_export import console
from gtp_export.options import Json, option
from gtp_export.running import (
    MEASURED,
    NOT_KEPT,
    RunOptions,
    placement_document,
    show_placements,
    takes_run_options,
)
from gtp_export.values import milliseconds
from gtp_export.values import seconds as read_seconds
from gtp_runtime.errors import BUDGET_MISSED, GTPRuntimeError, InputError
from gtp_runtime.manifest import twin

if TYPE_CHECKING:
    from gtp_runtime import Footprint, Latency, Model
    from gtp_runtime.messages import Progress

PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class Budget:
    """The most milliseconds that a percentile of a file's times may take."""

    percentile: str
    milliseconds: float

    def missed(self, result: "Latency") -> str:
        """Return what is wrong with a result, or ""."""
        time: float = getattr(result, f"{self.percentile}_ms")
        if time <= self.milliseconds:
            return ""
        return f"{result.file}: {self.percentile} {time:.2f} ms is over the budget of {self.milliseconds:g} ms"


def read_budget(value: "str | Budget") -> Budget:
    """Return the budget of an option: ``20`` or ``20ms`` is the median's, ``p99:20`` that of another percentile."""
    if isinstance(value, Budget):
        return value
    name, colon, time = value.rpartition(":")
    if colon and name not in PERCENTILES:
        raise typer.BadParameter(
            f"{name!r} is no percentile: give milliseconds, or one of {', '.join(PERCENTILES)} before them (p99:20)."
        )
    return Budget(name or PERCENTILES[0], milliseconds(time))


@takes_run_options(threads=MEASURED)
def bench(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Files or artifact directories. A single one is compared with its dense baseline.", show_default=False
        ),
    ],
    seconds: Annotated[
        float,
        option(
            "Timing duration for all files together, after a warm-up: 3, 500ms, 1m (default: 3s).",
            parser=read_seconds,
            metavar="TIME",
        ),
    ] = 3.0,
    batch: Annotated[
        int | None,
        option("Images per run, of files that take a range of batches (default: the fewest).", "-b", "--batch", min=1),
    ] = None,
    budget_ms: Annotated[
        Budget | None,
        option(
            "Fail (exit code 5) if the median of a file is above this, or another percentile: 20, 20ms, p99:20. "
            "It applies to dense files only if no other file is given.",
            "--budget-ms",
            "--latency-budget",
            parser=read_budget,
            metavar="[pNN:]TIME",
        ),
    ] = None,
    must_beat_dense: Annotated[
        bool,
        typer.Option("--must-beat-dense", help="Fail (exit code 5) if a file is not faster (p50) than the dense ones."),
    ] = False,
    footprint: Annotated[
        bool, typer.Option(help="Also measure peak memory and cold start, in separate processes.")
    ] = True,
    *,
    running: RunOptions,
    json: Json = False,
) -> None:
    """Measure latency in interleaved runs, relative to the first file; then size, peak memory and cold start."""
    from gtp_export.tables import conditions_lines, footprint_table, latency_table
    from gtp_runtime import benchmark
    from gtp_runtime.latency import record_latency

    files = _with_twin(paths, running)
    with ExitStack() as stack:
        models = [stack.enter_context(running.load_file(path)) for path in files]
        if batch is not None:
            for model in models:
                model.use_batch(batch)
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
        pairs = zip(results, models, strict=True)
        documents = [
            {**result.to_dict(), "backend": model.backend.name, "device": model.device, **placement_document(model)}
            for result, model in pairs
        ]
        console.emit({"settings": settings, "backends": backends, "files": documents})
    else:
        latency_table(results, _title(models))
        conditions_lines(results)
        footprint_table(results)
        show_placements(models)
        console.next_command("validate", models[-1].path)
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
    complete = []
    for done, (result, file) in enumerate(zip(results, files, strict=True)):
        update(f"measuring memory and cold start of {file.name}", done / len(files))
        complete.append(replace(result, footprint=_footprint(file, running)))
    return complete


def _footprint(file: Path, running: RunOptions) -> "Footprint":
    """Measure a file; where no process can run it, say why and return its size alone."""
    from gtp_runtime.footprint import Footprint, file_bytes, measure_footprint

    try:
        return measure_footprint(file, running.backend, **running.options(file))
    except GTPRuntimeError as error:
        console.note(f"note: memory and cold start of {file} are not measured: {error}")
        return Footprint(file_bytes(file))


def _title(models: "list[Model]") -> str:
    used = dict.fromkeys(f"{model.backend.name} {model.backend.info['version']} on {model.device}" for model in models)
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


def over_budget(results: "Sequence[Latency]", dense: Sequence[bool], budget: Budget) -> list[str]:
    """Return what is wrong with each file over the budget; dense ones beside others are there to compare with."""
    pairs = zip(results, dense, strict=True)
    problems = [budget.missed(result) for result, is_dense in pairs if not is_dense or all(dense)]
    return [text for text in problems if text]


def slower_than_dense(results: "Sequence[Latency]", dense: Sequence[bool]) -> list[str]:
    """Return what is wrong with each reduced file whose median is not below that of every dense file.

    Args:
        results: of one run.
        dense: whether each is of a dense file; at least one is.
    """
    pairs = list(zip(results, dense, strict=True))
    best = min((result for result, is_dense in pairs if is_dense), key=lambda result: result.p50_ms)
    reduced = [result for result, is_dense in pairs if not is_dense]
    return [
        f"{result.file}: p50 {result.p50_ms:.2f} ms does not beat dense: {best.file} takes {best.p50_ms:.2f} ms"
        for result in reduced
        if result.p50_ms >= best.p50_ms
    ]
