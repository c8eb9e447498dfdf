"""``gtp-export validate``: compare the outputs of a file with those of eager PyTorch."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gtp_export import console
from gtp_export.options import (
    ClassesFrom,
    ClassOrder,
    DataFolder,
    Json,
    Labels,
    ModelPath,
    Ray,
    Workers,
    check_class_order,
    option,
)
from gtp_export.running import (
    NOT_KEPT,
    RunOptions,
    fleet_document,
    fleet_scoring,
    joined_fleet,
    placement_document,
    show_fleet,
    show_placements,
    takes_run_options,
)
from gtp_export.values import finite
from gtp_runtime.accuracy import NAMED
from gtp_runtime.errors import DONE, GATE_FAILED, MISSING
from gtp_runtime.messages import one_line
from gtp_runtime.precisions import PRECISIONS

if TYPE_CHECKING:
    from gtp_runtime import Accuracy, ImageSet, Model

SHOWN = 10  # images that cannot be read, on a terminal
_KEPT = ", ".join(f"{name} {precision.parity.kept:g}" for name, precision in PRECISIONS.items())


@takes_run_options()
def validate(
    path: ModelPath,
    data: DataFolder = None,
    labels: Labels = None,
    class_order: ClassOrder = None,
    classes_from: ClassesFrom = None,
    masks: Annotated[
        Path | None,
        option("With --data, for a module's outputs: a folder of PNG masks of class ids, of the images' names; mIoU."),
    ] = None,
    depths: Annotated[
        Path | None,
        option("With --data, for a module's outputs: a folder of depths, .npy or 16-bit PNG, of these names; AbsRel."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="With --data: fail at the first image that cannot be read.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="With --data: store the state of the evaluation in this file, and resume from it.",
            show_default=False,
        ),
    ] = None,
    workers: Workers = None,
    ray: Ray = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="With --data: fail if top-1 is more than this many percentage points below the dense baseline's.",
            min=0,
            show_default=False,
            callback=finite,
        ),
    ] = None,
    max_distance: Annotated[
        float | None,
        typer.Option(
            help="With --data: fail if the outputs are further than this from the dense baseline's, in the unit of the "
            "metric (divergence, relative error, mIoU, AbsRel).",
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
) -> None:
    """Prove parity with the eager model on the reference images; --data adds accuracy against the dense baseline.

    Of features that is k-NN top-1 and retrieval of labelled images, and the distance from dense; of maps the distance.
    """
    from gtp_export.tables import accuracy_lines, parity_lines
    from gtp_runtime.latency import measured_by

    reading: dict[str, Any] = {"strict": strict, "workers": workers, "resume": resume}
    truth: dict[str, Any] = {"classes_from": classes_from, "masks": masks, "depths": depths}
    _check_data(data, max_drop=max_drop, max_distance=max_distance, ray=ray, **reading, **truth)
    check_class_order(data, labels, class_order)
    with running.load(path) as model, joined_fleet(ray, data) as fleet:
        images = None if data is None else _images(model, data, labels, class_order, max_drop, truth)
        with console.progress("validating") as update:
            report = model.validate(update, min_kept)
        kept = model.record("parity", report.to_dict() | measured_by(model))
        given = {**reading, **truth, **fleet_scoring(fleet)}
        accuracy = None if images is None else _accuracy(model, images, running, given)
        if accuracy is not None and images is not None:
            found = {**accuracy.to_dict(), "data": one_line(images.folder.resolve().name)}
            model.record("accuracy", found | measured_by(model))
        reference = str(model.manifest.reference.get("images", "unknown"))
    code, problem = _judge(accuracy, max_drop, max_distance)
    code = code if report.ok else GATE_FAILED
    if json:
        document: dict[str, Any] = report.to_dict() | model.answered()
        document["accuracy"] = None if accuracy is None else accuracy.to_dict()
        document |= fleet_document(fleet) | placement_document(model)
        document["ok"] = code == DONE
        console.emit(document)
    else:
        console.out.print(f"tested {model}", markup=False)
        show_placements([model])
        parity_lines(report, reference)
        if accuracy is not None:
            accuracy_lines(accuracy, str(data))
        show_fleet(fleet)
        console.next_command("bench", model.path)
    if not kept:
        console.note(NOT_KEPT)
    if problem:
        console.err.print(f"error: {problem}", style="red")
    if code != DONE:
        raise typer.Exit(code)


def _judge(accuracy: "Accuracy | None", max_drop: float | None, max_distance: float | None) -> tuple[int, str]:
    """Return the exit code that the limits lead to, and what is wrong."""
    if max_drop is not None and (accuracy is None or accuracy.top1_drop is None):
        return MISSING, (
            "--max-drop has no accuracy to compare: it needs one sub-folder per class in --data, and a dense baseline "
            "that can run here"
        )
    if max_distance is not None and (accuracy is None or accuracy.distance is None):
        return MISSING, "--max-distance needs the dense baseline, which is missing here or cannot run: export with it"
    if max_drop is not None and accuracy is not None and 100 * (accuracy.top1_drop or 0) > max_drop:
        drop = 100 * (accuracy.top1_drop or 0)
        return GATE_FAILED, f"{accuracy.quality} is {drop:.2f} points below dense, --max-drop allows {max_drop:g}"
    if max_distance is not None and accuracy is not None and (accuracy.distance or 0) > max_distance:
        said = f"{accuracy.metric} is {accuracy.distance:.4g} {accuracy.unit}".rstrip()
        return GATE_FAILED, f"{said} away from dense, --max-distance allows {max_distance:g}"
    return DONE, ""


NEEDS_DATA = {
    "max_drop": "it compares accuracy on these images",
    "max_distance": "it compares outputs on these images",
    "classes_from": "it says the classes of these images",
    "masks": "they are of these images",
    "depths": "they are of these images",
    "strict": "it says what becomes of images that cannot be read",
    "resume": "it keeps how far the measuring of accuracy is",
    "workers": "they read these images",
    "ray": "its nodes read these images",
}


def _check_data(data: Path | None, **given: Any) -> None:
    for name, value in given.items():
        if data is None and value is not None and value is not False:
            raise typer.BadParameter(f"--{name.replace('_', '-')} needs --data DIR: {NEEDS_DATA[name]}")


def _images(
    model: "Model",
    data: Path,
    labels: Path | None,
    class_order: str | None,
    max_drop: float | None,
    truth: dict[str, Any],
) -> "ImageSet":
    from gtp_runtime.question import LOGITS, ask, images_for

    question, _ = ask(model.manifest, **truth)
    images = images_for(data, model.manifest, question, labels, class_order)
    is_known = question.kind == LOGITS or (question.has_classes and images.classes is not None)
    if max_drop is not None and not is_known:
        raise typer.BadParameter(
            f"--max-drop is of top-1, and here nothing has classes: give --max-distance, of {question.metric.name}"
            f"{', or images in one sub-folder a class' if question.has_classes else ''}"
        )
    return images


def _accuracy(model: "Model", images: "ImageSet", running: RunOptions, reading: dict[str, Any]) -> "Accuracy":
    from gtp_runtime import evaluate

    with ExitStack() as stack, console.progress("measuring accuracy", len(images)) as update:
        twin = running.load_twin(model)
        dense = None if twin is None else stack.enter_context(twin)
        accuracy = evaluate(model, dense, images, update, **reading)
    if accuracy.unreadable:
        _name_unreadable(accuracy)
    return accuracy


def _name_unreadable(accuracy: "Accuracy") -> None:
    total = accuracy.images + accuracy.unreadable
    console.note(f"note: {accuracy.unreadable} of {total} images cannot be read and were left out (--strict fails):")
    shown = accuracy.unreadable_images[:SHOWN]
    for why in shown:
        console.note(f"  {why}")
    if accuracy.unreadable > len(shown):
        console.note(f"  and {accuracy.unreadable - len(shown)} more; --json names the first {NAMED}")
