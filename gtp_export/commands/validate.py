"""``gtp-export validate``: compare the outputs of a file with those of eager PyTorch."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gtp_export import console
from gtp_export.exit_codes import DONE, GATE_FAILED, MISSING
from gtp_export.numbers import finite
from gtp_export.options import DataFolder, Json, ModelPath, Quiet, Verbose
from gtp_export.run_options import NOT_KEPT, RunOptions, takes_run_options
from gtp_runtime.images import find_images
from gtp_runtime.parity_gates import LIMITS

if TYPE_CHECKING:
    from gtp_runtime import Accuracy, Model

_KEPT = ", ".join(f"{precision} {limits.kept:g}" for precision, limits in LIMITS.items())


@takes_run_options()
def validate(
    path: ModelPath,
    data: DataFolder = None,
    by_order: Annotated[
        bool,
        typer.Option(
            "--by-order",
            help="With --data: the sub-folders are the classes 0, 1, ... in alphabetical order, whatever their names.",
        ),
    ] = False,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="With --data: fail if top-1 is more than this many percentage points below the dense baseline's.",
            min=0,
            show_default=False,
            callback=finite,
        ),
    ] = None,
    min_kept: Annotated[
        float | None,
        typer.Option(
            help=f"Minimum share of images whose kept sets agree, 0 to 1 (default: {_KEPT}).",
            min=0,
            max=1,
            show_default=False,
            callback=finite,
        ),
    ] = None,
    *,
    running: RunOptions,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Prove parity with the eager model on the reference images; --data adds accuracy against the dense baseline."""
    from gtp_export.reports import accuracy_lines, parity_lines

    if max_drop is not None and data is None:
        raise typer.BadParameter("--max-drop needs --data DIR: it compares accuracy on these images")
    if by_order and data is None:
        raise typer.BadParameter("--by-order needs --data DIR: it maps the sub-folders of DIR to classes")
    with running.load(path) as model:
        if data is not None:
            model.check_classes("accuracy")
            find_images(data)  # fail early
        with console.progress("validating") as update:
            report = model.validate(update, min_kept)
        kept = model.record("parity", report.to_dict())
        accuracy = _accuracy(model, data, by_order, running) if data is not None else None
        images = str(model.manifest.reference.get("images", "unknown"))
    code, problem = _judge(accuracy, max_drop)
    code = code if report.ok else GATE_FAILED
    if json:
        document: dict[str, Any] = report.to_dict() | {"file": str(model.path)}
        document["accuracy"] = None if accuracy is None else accuracy.to_dict()
        document["ok"] = code == DONE
        console.emit(document)
    else:
        parity_lines(report, images)
        if accuracy is not None:
            accuracy_lines(accuracy, str(data))
        console.out.print(f"next: gtp-export bench {model.path}", markup=False)
    if not kept:
        console.note(NOT_KEPT)
    if problem:
        console.err.print(f"error: {problem}", style="red")
    if code != DONE:
        raise typer.Exit(code)


def _judge(accuracy: "Accuracy | None", max_drop: float | None) -> tuple[int, str]:
    """Return the exit code that --max-drop leads to, and what is wrong."""
    if max_drop is None:
        return DONE, ""
    if accuracy is None or accuracy.top1_drop is None:
        return MISSING, (
            "--max-drop has no accuracy to compare: it needs one sub-folder per class in --data, and a dense baseline "
            "that can run here"
        )
    drop = 100 * accuracy.top1_drop
    if drop > max_drop:
        return GATE_FAILED, f"top-1 is {drop:.2f} points below dense, --max-drop allows {max_drop:g}"
    return DONE, ""


def _accuracy(model: "Model", data: Path, by_order: bool, running: RunOptions) -> "Accuracy":
    from gtp_runtime import evaluate

    with ExitStack() as stack, console.progress("measuring accuracy") as update:
        twin = running.load_twin(model.path)
        dense = None if twin is None else stack.enter_context(twin)
        return evaluate(model, dense, data, update, by_order=by_order)
