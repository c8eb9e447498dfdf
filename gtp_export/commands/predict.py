"""``gtp-export predict``: classify images."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gtp_export import console
from gtp_export.options import Json, ModelPath, Workers
from gtp_export.running import RunOptions, takes_run_options
from gtp_runtime.errors import FAILED, ImageError
from gtp_runtime.images.folders import image_names, image_path
from gtp_runtime.manifest import FILE_NAME

if TYPE_CHECKING:
    from gtp_runtime.prediction import Answer


@takes_run_options()
def predict(
    path: ModelPath,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of images.", show_default=False)],
    topk: Annotated[int, typer.Option(help="Number of classes to show, best first.", min=1)] = 5,
    exif: Annotated[
        bool | None,
        typer.Option(
            help="Rotate images by their EXIF orientation (default: as the manifest says; timm's evaluation does not).",
            show_default=False,
        ),
    ] = None,
    allow_random: Annotated[
        bool, typer.Option("--allow-random", help="Predict even if the weights are random.")
    ] = False,
    json_lines: Annotated[
        bool,
        typer.Option(
            "--json-lines", help="Print one JSON document per line and image, as soon as it is done; it names the file."
        ),
    ] = False,
    workers: Workers = None,
    *,
    running: RunOptions,
    json: Json = False,
) -> None:
    """Classify images with an exported model; unreadable images are reported (exit code 1)."""
    if json and json_lines:
        raise typer.BadParameter("--json prints one document, --json-lines one for each image: give one of the two")
    check_order(path, images)
    documents: list[dict[str, Any]] = []
    failed = 0
    paths = Paths(images)
    with running.load(path) as model:
        answers = model.predict_each(
            paths, topk, exif=exif, allow_random=allow_random, workers=workers or paths.workers
        )
        is_said = json_lines
        for image, answer in answers:
            failed += isinstance(answer, ImageError)
            if not is_said and not isinstance(answer, ImageError):
                console.note(f"answered by {model}")
                is_said = True
            if json:
                documents.append(_document(image, answer))
            elif json_lines:
                console.emit_line(_document(image, answer) | model.answered())
            else:
                _show(image, answer)
    if json:
        console.emit({**model.answered(), "images": documents})
    if failed > 1:
        console.err.print(f"error: {failed} of {paths.count} images cannot be read", style="red")
    if failed:
        raise typer.Exit(FAILED)


def check_order(path: Path, images: list[Path], command: str = "predict") -> None:
    """Refuse an image in the place of the model, where the model comes after it."""
    swapped = [image for image in images if (image / FILE_NAME).exists() or image.suffix in (".onnx", ".engine")]
    if swapped and path.suffix not in (".onnx", ".engine") and not (path / FILE_NAME).exists():
        raise typer.BadParameter(f"the model comes first: gtp-export {command} {swapped[0]} {path}")


class Paths:
    """The images that the user names, those of folders one by one; ``count`` says how many came so far."""

    def __init__(self, given: list[Path]) -> None:
        self._folders = {path: image_names(path) for path in given if path.is_dir()}
        self._given = given
        self.count = 0
        self.workers = None if self._folders or len(given) > 1 else 1

    def __iter__(self) -> Iterator[str]:
        for path in self._given:
            if path not in self._folders:
                self.count += 1
                yield str(path)
            for name in self._folders.get(path, ()):
                self.count += 1
                yield image_path(path, name)


def _document(image: Any, answer: "Answer") -> dict[str, Any]:
    if isinstance(answer, ImageError):
        return {"image": str(image), "error": str(answer)}
    return {"image": str(image), "predictions": [asdict(entry) for entry in answer]}


def _show(image: Any, answer: "Answer") -> None:
    if isinstance(answer, ImageError):
        console.err.print(f"error: {answer}", style="red", markup=False)
        return
    console.table(str(image), ("", ""), [(f"  {entry.label}", f"{entry.probability:.1%}") for entry in answer])
