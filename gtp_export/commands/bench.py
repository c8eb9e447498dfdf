"""``gtp-export bench``: latency of several files, taken in turn."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gtp_export import console
from gtp_export.exit_codes import BUDGET_MISSED
from gtp_export.options import (
    BackendName,
    BackendOption,
    Compute,
    ComputeOption,
    Json,
    Provider,
    ProviderOption,
    Quiet,
    Threads,
    Verbose,
    run_options,
)

if TYPE_CHECKING:
    from gtp_runtime import Model


def bench(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Files or artifact directories; one alone is compared with its dense twin.", show_default=False
        ),
    ],
    seconds: Annotated[float, typer.Option(help="For all files together, after a warm-up.", min=0)] = 3.0,
    budget_ms: Annotated[
        float | None, typer.Option(help="Fail if a file (dense twins aside) has a p50 above this.", show_default=False)
    ] = None,
    threads: Threads = 1,
    backend: BackendOption = BackendName.auto,
    provider: ProviderOption = Provider.cpu,
    compute: ComputeOption = Compute.fp32,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure latency: files in turn, percentiles, ratio to the first, share of the saved MACs realised."""
    from gtp_export.reports import latency_table
    from gtp_runtime import benchmark, load

    running = run_options(backend, threads, provider, compute)
    models = [load(path, **running) for path in _with_twin(paths)]
    with console.progress("benchmarking") as update:
        results = benchmark(models, seconds, update)
    over = [
        result
        for result, model in zip(results, models, strict=True)
        if budget_ms is not None and model.entry.role != "dense" and result.p50_ms > budget_ms
    ]
    for model, result in zip(models, results, strict=True):
        model.record("latency", {**result.to_dict(), "file": model.path.name, **model.backend.info})
        model.close()
    if json:
        settings = {"threads": threads, "provider": provider.value, "seconds": seconds}
        backends = [{"name": model.backend.name, **model.backend.info} for model in models]
        console.emit({"settings": settings, "backends": backends, "files": [result.to_dict() for result in results]})
    else:
        latency_table(results, _title(models, threads))
        console.out.print(f"next: gtp-export validate {models[-1].path}", markup=False)
    for result in over:
        console.err.print(
            f"error: {result.file}: p50 {result.p50_ms:.2f} ms is over the budget of {budget_ms:g} ms", style="red"
        )
    if over:
        raise typer.Exit(BUDGET_MISSED)


def _title(models: "list[Model]", threads: int) -> str:
    used = dict.fromkeys(f"{model.backend.name} {model.backend.info['version']}" for model in models)
    return f"{', '.join(used)}; {threads or 'all'} CPU thread{'' if threads == 1 else 's'}, batch {models[0].batch}"


def _with_twin(paths: list[Path]) -> list[Path]:
    """A file alone says little: put its dense twin before it, where there is one."""
    if len(paths) != 1:
        return paths
    from gtp_runtime import read_manifest

    path = paths[0] / "model.onnx" if paths[0].is_dir() else paths[0]
    if not path.exists():
        return paths
    files = read_manifest(path.parent).files
    dense = [path.parent / name for name, entry in files.items() if entry.role == "dense" and name != path.name]
    twins = [twin for twin in dense if twin.suffix == path.suffix]
    return [*twins, path]
