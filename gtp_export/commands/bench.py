"""``gtp-export bench``: latency of several files, in interleaved runs."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gtp_export import console
from gtp_export.exit_codes import BUDGET_MISSED
from gtp_export.numbers import finite, positive
from gtp_export.options import Json, Quiet, Verbose
from gtp_export.run_options import NOT_KEPT, RunOptions, takes_run_options
from gtp_runtime.manifest import twin

if TYPE_CHECKING:
    from gtp_runtime import Model


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
        float | None,
        typer.Option(
            help="Fail (exit code 5) if the median of a file is above this. It does not apply to dense files.",
            show_default=False,
            callback=positive,
        ),
    ] = None,
    *,
    running: RunOptions,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure latency in interleaved runs: percentiles, ratio to the first file, realised share of the saved MACs."""
    from gtp_export.reports import latency_table
    from gtp_runtime import benchmark
    from gtp_runtime.comparing import record_latency

    with ExitStack() as stack:
        models = [stack.enter_context(running.load_file(path)) for path in _with_twin(paths, running)]
        with console.progress("benchmarking") as update:
            results = benchmark(models, seconds, update)
    over = [
        result
        for result, model in zip(results, models, strict=True)
        if budget_ms is not None and model.entry.role != "dense" and result.p50_ms > budget_ms
    ]
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
        console.out.print(f"next: gtp-export validate {models[-1].path}", markup=False)
    if not kept:
        console.note(NOT_KEPT)
    for result in over:
        console.err.print(
            f"error: {result.file}: p50 {result.p50_ms:.2f} ms is over the budget of {budget_ms:g} ms",
            style="red",
            markup=False,
        )
    if over:
        raise typer.Exit(BUDGET_MISSED)


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
