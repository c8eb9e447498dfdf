"""``gtp-export embed``: the features of images, in a file."""

import json as json_module
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import typer

from gtp_export import console
from gtp_export.commands.predict import Paths, check_order
from gtp_export.options import Json, ModelPath, Workers
from gtp_export.running import RunOptions, takes_run_options
from gtp_runtime.atomic import replacing
from gtp_runtime.errors import FAILED, ImageError

FORMS = (".npz", ".jsonl")


class Writer(Protocol):
    """Takes the outputs of one image after the other."""

    def add(self, image: str, outputs: dict[str, np.ndarray]) -> None:
        """Add an image; ``outputs`` are (...,) float32 by name."""
        ...


@takes_run_options()
def embed(
    path: ModelPath,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of images.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="The file to write: .npz (one array an output, and the files' names), or .jsonl (a line an image).",
            show_default=False,
        ),
    ],
    exif: Annotated[
        bool | None,
        typer.Option(
            help="Rotate images by their EXIF orientation (default: as the manifest says).", show_default=False
        ),
    ] = None,
    allow_random: Annotated[bool, typer.Option("--allow-random", help="Go on even if the weights are random.")] = False,
    workers: Workers = None,
    *,
    running: RunOptions,
    json: Json = False,
) -> None:
    """Write the features, patches or maps of images to a file; unreadable images are reported (exit code 1)."""
    if output.suffix not in FORMS:
        raise typer.BadParameter(f"-o {output}: name a file that ends in {' or '.join(FORMS)}")
    check_order(path, images, "embed")
    paths, failed = Paths(images), 0
    shapes: dict[str, tuple[int, ...]] = {}
    with running.load(path) as model, _writer(output) as writer:
        options = {"exif": exif, "workers": workers or paths.workers}
        answers = model.features_each(paths, allow_random=allow_random, **options)  # type: ignore[arg-type]
        for image, outputs in answers:
            if isinstance(outputs, ImageError):
                failed += 1
                console.err.print(f"error: {outputs}", style="red", markup=False)
                continue
            writer.add(str(image), outputs)
            shapes = {name: values.shape for name, values in outputs.items()}
        if failed == paths.count:
            raise ImageError(f"none of {failed} images can be read: nothing was written to {output}")
    count = paths.count - failed
    shapes = {name: (count, *shape) for name, shape in shapes.items()}
    if json:
        numbers = {"images": count, "unreadable": failed, "outputs": shapes}
        console.emit({**model.answered(), **numbers, "written": str(output)})
    else:
        console.note(f"answered by {model}")
        described = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        console.out.print(f"wrote {output}: {described} of {count} images", markup=False)
    if failed:
        raise typer.Exit(FAILED)


@contextmanager
def _writer(output: Path) -> Iterator[Writer]:
    """Open a file of either form; an earlier one stays whole unless everything was written."""
    with replacing(output) as temporary, temporary.open("wb") as file:
        writer = _Lines(file) if output.suffix == ".jsonl" else _Arrays(file)
        yield writer
        writer.close()


class _Lines:
    def __init__(self, file: Any) -> None:
        self.file = file

    def add(self, image: str, outputs: dict[str, np.ndarray]) -> None:
        line = {"image": image, **{name: values.tolist() for name, values in outputs.items()}}
        self.file.write(json_module.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Nothing is left to write."""


class _Arrays:
    def __init__(self, file: Any) -> None:
        self.file = file
        self.images: list[str] = []
        self.outputs: dict[str, list[np.ndarray]] = {}

    def add(self, image: str, outputs: dict[str, np.ndarray]) -> None:
        self.images.append(image)
        for name, values in outputs.items():
            self.outputs.setdefault(name, []).append(values)

    def close(self) -> None:
        """Write all arrays, and ``image`` with the files' names."""
        arrays = {name: np.stack(values) for name, values in self.outputs.items()}
        np.savez(self.file, image=np.array(self.images), **arrays)  # type: ignore[arg-type]
