"""``gtp-export validate``: does a file answer what eager PyTorch answered?"""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gtp_export import console
from gtp_export.exit_codes import GATE_FAILED
from gtp_export.numbers import finite
from gtp_export.options import (
    BackendName,
    BackendOption,
    Compute,
    ComputeOption,
    DataFolder,
    Json,
    ModelPath,
    Provider,
    ProviderOption,
    Quiet,
    Threads,
    Verbose,
    run_options,
)

if TYPE_CHECKING:
    from gtp_runtime import Accuracy, Model


def validate(
    path: ModelPath,
    data: DataFolder = None,
    by_order: Annotated[
        bool,
        typer.Option(
            "--by-order",
            help="With --data: take the sub-folders in alphabetical order for classes 0, 1, ...",
        ),
    ] = False,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="With --data: fail if top-1 is more points than this below that of the dense twin.",
            min=0,
            show_default=False,
            callback=finite,
        ),
    ] = None,
    min_kept: Annotated[
        float | None,
        typer.Option(
            help="Share of images whose kept sets must agree, 0 to 1 (default: fp32 0.75, fp16 0.5, bf16 0).",
            min=0,
            max=1,
            show_default=False,
            callback=finite,
        ),
    ] = None,
    threads: Threads = 0,
    backend: BackendOption = BackendName.auto,
    provider: ProviderOption = Provider.cpu,
    compute: ComputeOption = Compute.fp32,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Prove parity with the eager model on the parity pack's images; --data adds accuracy beside the dense twin."""
    from gtp_export.reports import accuracy_lines, parity_lines
    from gtp_runtime import load

    if max_drop is not None and data is None:
        raise typer.BadParameter("--max-drop needs --data DIR: it compares accuracy on these images")
    if by_order and data is None:
        raise typer.BadParameter("--by-order needs --data DIR: it says which classes its sub-folders are")
    running = run_options(backend, threads, provider, compute)
    with load(path, **running) as model:
        if data is not None:
            model.check_classes("accuracy")
        with console.progress("validating") as update:
            report = model.validate(update, min_kept)
        accuracy = _accuracy(model, data, by_order, running) if data is not None else None
        kept = model.record("parity", report.to_dict())
        images = str(model.manifest.reference["images"])
    drop = None if accuracy is None or accuracy.top1_drop is None else 100 * accuracy.top1_drop
    missed = max_drop is not None and (drop is None or drop > max_drop)
    if json:
        document: dict[str, Any] = report.to_dict() | {"file": str(model.path)}
        document["accuracy"] = None if accuracy is None else accuracy.to_dict()
        document["ok"] = report.ok and not missed
        console.emit(document)
    else:
        parity_lines(report, images)
        if accuracy is not None:
            accuracy_lines(accuracy, str(data))
        console.out.print(f"next: gtp-export bench {model.path}", markup=False)
    if not kept:
        console.note("note: the manifest could not be written, so the result was not kept there")
    if missed:
        console.err.print(
            "error: no accuracy to compare: --max-drop needs class folders and a dense twin"
            if drop is None
            else f"error: top-1 is {drop:.2f} points below dense, --max-drop allows {max_drop:g}",
            style="red",
        )
    if missed or not report.ok:
        raise typer.Exit(GATE_FAILED)


def _accuracy(model: "Model", data: Path, by_order: bool, running: dict[str, Any]) -> "Accuracy":
    from gtp_runtime import evaluate, load
    from gtp_runtime.manifest import twin

    path = twin(model.path)
    with ExitStack() as stack, console.progress("measuring accuracy") as update:
        dense = None if path is None else stack.enter_context(load(path, **running))
        return evaluate(model, dense, data, update, by_order=by_order)
