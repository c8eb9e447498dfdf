"""``gtp-export predict``: classify images."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gtp_export import console
from gtp_export.options import Json, ModelPath, Quiet, Verbose
from gtp_export.run_options import RunOptions, takes_run_options


@takes_run_options()
def predict(
    path: ModelPath,
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    topk: Annotated[int, typer.Option(help="Number of classes to show, best first.", min=1)] = 5,
    exif: Annotated[
        bool, typer.Option(help="Rotate images by their EXIF orientation, which timm's evaluation ignores.")
    ] = False,
    allow_random: Annotated[
        bool, typer.Option("--allow-random", help="Predict even if the weights are random.")
    ] = False,
    *,
    running: RunOptions,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Classify images with an exported model."""
    with running.load(path) as model:
        answers = model.predict(list(images), topk, exif=exif, allow_random=allow_random)
    if json:
        found = [
            {"image": str(image), "predictions": [asdict(entry) for entry in answer]}
            for image, answer in zip(images, answers, strict=True)
        ]
        console.emit({"images": found})
        return
    for image, answer in zip(images, answers, strict=True):
        rows = [(f"  {entry.label}", f"{entry.probability:.1%}") for entry in answer]
        console.table(str(image), ("", ""), rows)
