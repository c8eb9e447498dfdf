"""``gtp-export validate``: does a file answer what eager PyTorch answered?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gtp_export import console
from gtp_export.exit_codes import GATE_FAILED
from gtp_export.options import DataFolder, Json, ModelPath, Quiet, Verbose
from gtp_export.run_options import RunOptions, takes_run_options

if TYPE_CHECKING:
    from gtp_runtime import Accuracy, Model


@takes_run_options()
def validate(
    path: ModelPath,
    data: DataFolder = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="With --data: fail if top-1 falls more points than this below dense.", min=0, show_default=False
        ),
    ] = None,
    *,
    running: RunOptions,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Prove parity with the eager model from the parity pack, gated; --data adds accuracy beside the dense twin."""
    from gtp_export.reports import accuracy_lines, parity_lines

    if max_drop is not None and data is None:
        raise typer.BadParameter("--max-drop needs --data DIR: it compares accuracy on these images")
    with running.load(path) as model:
        if data is not None:
            model.check_classes("accuracy")
        with console.progress("validating") as update:
            report = model.validate(update)
        accuracy = _accuracy(model, data, running) if data is not None else None
        kept = model.record("parity", report.to_dict())
        images = str(model.manifest.reference["images"])
    drop = _drop(accuracy)
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


def _accuracy(model: "Model", data: Path, running: RunOptions) -> "Accuracy":
    from gtp_runtime import evaluate

    dense = running.load_twin(model.path)
    try:
        with console.progress("measuring accuracy") as update:
            return evaluate(model, dense, data, update)
    finally:
        if dense is not None:
            dense.close()


def _drop(accuracy: "Accuracy | None") -> float | None:
    if accuracy is None or accuracy.top1 is None or accuracy.dense_top1 is None:
        return None
    return 100 * (accuracy.dense_top1 - accuracy.top1)
