"""Runs a loaded file on images, batch by batch."""

from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from gtp_runtime.backends import Backend
from gtp_runtime.decoding import ImageLike
from gtp_runtime.errors import InputError
from gtp_runtime.manifest import FileEntry, Manifest
from gtp_runtime.progress import Progress, quiet

Self = TypeVar("Self", bound="Runner")  # typing.Self needs Python 3.11


class Runner:
    """A file of an artifact directory, loaded; made by ``load``. ``run`` is safe to call from several threads.

    Attributes:
        path: the file.
        manifest: the manifest of its directory.
        entry: the entry of this file in the manifest.
        backend: the backend that runs it.
        options: how: the backend's own dataclass.
    """

    def __init__(self, path: Path, manifest: Manifest, backend: Backend, options: Any) -> None:
        self.path, self.manifest, self.backend, self.options = path, manifest, backend, options
        self.entry: FileEntry = manifest.entry(path.name)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the resources of the backend."""
        self.backend.close()

    @property
    def batch(self) -> int:
        """Images per run."""
        return self.entry.inputs[0].shape[0]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Run one batch: (B, 3, H, W) float32 preprocessed pixels to (B, classes) float32 logits, or to
        (B, dim) features where the model has no classifier.

        An export with ``--input uint8`` takes (B, H, W, 3) uint8 pixels instead.

        Raises:
            InputError: another shape or dtype.
        """
        return self.outputs(images)[self.entry.outputs[0].name]

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run one batch and return every output by name: ``logits`` (``features``), and ``propagated`` where traced."""
        images, spec = np.asarray(images), self.entry.inputs[0]
        if list(images.shape) != spec.shape or images.dtype != np.dtype(spec.dtype):
            raise InputError(
                f"{self.path.name} takes {tuple(spec.shape)} {spec.dtype}, this is {images.shape} {images.dtype}: "
                "model.preprocess(image) makes one image's input; predict() and run_all() fill batches"
            )
        return self.backend.run({spec.name: images})

    def run_all(
        self, images: np.ndarray, progress: Progress = quiet, task: str = "running images"
    ) -> dict[str, np.ndarray]:
        """Run any number (N > 0) of preprocessed images, batch by batch; the last batch is filled up with zeros.

        ``progress`` is told the task and the share done.
        """
        if np.ndim(images) == 0 or not len(images):
            raise InputError("no images: give at least one")
        images, parts = np.asarray(images), []
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            missing = self.batch - len(part)
            padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part
            parts.append({name: value[: len(part)] for name, value in self.outputs(padded).items()})
            progress(task, min(1.0, (start + self.batch) / len(images)))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def preprocess(self, image: ImageLike, *, exif: bool = False) -> np.ndarray:
        """Return one image's input: (3, H, W) float32, or (H, W, 3) uint8 where the graph normalises by itself."""
        return self.prepare(self.manifest.preprocessing.pixels(image, exif=exif))

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """Turn (..., H, W, 3) uint8 pixels of the right size into the input."""
        takes_pixels = self.entry.inputs[0].dtype == "uint8"
        return pixels if takes_pixels else self.manifest.preprocessing.normalise(pixels)
