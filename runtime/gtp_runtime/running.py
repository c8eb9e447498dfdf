"""Runs a loaded file on images, batch by batch."""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import numpy as np

from gtp_runtime.backends import Backend
from gtp_runtime.deadline import Deadline
from gtp_runtime.deploy.watch import Stats, Watch
from gtp_runtime.errors import DeadlineError, GTPRuntimeError, InputError
from gtp_runtime.images.decoding import ImageLike
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

    def __init__(
        self, path: Path, manifest: Manifest, backend: Backend, options: Any, check_inputs: bool = False
    ) -> None:
        self.path, self.manifest, self.backend, self.options = path, manifest, backend, options
        self.entry: FileEntry = manifest.entry(path.name)
        self._check_inputs, self._process, self._watch = check_inputs, os.getpid(), Watch(str(path))

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        """Raise ``InputError``: a loaded model cannot be pickled."""
        raise InputError(f"{self.path.name} is loaded in this process alone: pass its path, and load it in the other")

    def close(self) -> None:
        """Free the resources of the backend; in a forked process they are the parent's and stay."""
        if os.getpid() == self._process:
            self.backend.close()

    def stats(self) -> Stats:
        """Return count, percentiles and drift of the latency of ``run`` and of all that stands on it."""
        return self._watch.stats()

    @property
    def batch(self) -> int:
        """Images per run."""
        return self.entry.inputs[0].shape[0]

    def run(self, images: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """Run one batch: (B, 3, H, W) float32 preprocessed pixels to (B, classes) float32 logits, or to
        (B, dim) features where the model has no classifier.

        An export with ``--input uint8`` takes (B, H, W, 3) uint8 pixels instead.

        Args:
            images: the batch.
            timeout: seconds after which the run is stopped; None for none. Backends check it between operators.

        Raises:
            InputError: another shape or dtype, values that are not finite (with ``check_inputs``), an invalid timeout,
                or one with a backend that cannot stop a run (tensorrt).
            DeadlineError: stopped after ``timeout``; the model can be used again at once.
            DeviceError: the engine or the device failed.
            GTPRuntimeError: the model was closed, or loaded before this process was forked.
        """
        return self.outputs(images, timeout=timeout)[self.entry.outputs[0].name]

    def outputs(self, images: np.ndarray, *, timeout: float | None = None) -> dict[str, np.ndarray]:
        """Run one batch as ``run`` does, and return every output by name: ``logits`` (``features``), and ``propagated``
        where traced.
        """
        return self._outputs(images, None if timeout is None else Deadline(timeout))

    def _outputs(self, images: np.ndarray, deadline: Deadline | None) -> dict[str, np.ndarray]:
        inputs = {self.entry.inputs[0].name: self._checked(images)}
        if os.getpid() != self._process:
            raise GTPRuntimeError(f"{self.path.name} was loaded before this process was forked: load it again here")
        start = time.perf_counter()
        outputs = self.backend.run(inputs) if deadline is None else self._run_within(inputs, deadline)
        self._watch.add(time.perf_counter() - start)
        return outputs

    def _run_within(self, inputs: dict[str, np.ndarray], deadline: Deadline) -> dict[str, np.ndarray]:
        run = getattr(self.backend, "run_within", None)
        if run is None:
            raise InputError(f"{self.backend.name} cannot stop a run: leave timeout out, and watch model.stats()")
        try:
            return run(inputs, deadline)
        except DeadlineError:
            self._watch.miss()
            raise

    def _checked(self, images: np.ndarray) -> np.ndarray:
        images, spec = np.asarray(images), self.entry.inputs[0]
        if list(images.shape) != spec.shape or images.dtype != np.dtype(spec.dtype):
            raise InputError(
                f"{self.path.name} takes {tuple(spec.shape)} {spec.dtype}, this is {images.shape} {images.dtype}: "
                "model.preprocess(image) makes one image's input; predict() and run_all() fill batches"
            )
        if self._check_inputs and not np.isfinite(images).all():
            broken = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3))).tolist()
            raise InputError(f"NaN or infinite values in images {broken} of the batch: check what prepares them")
        return images

    def run_all(
        self,
        images: np.ndarray,
        progress: Progress = quiet,
        task: str = "running images",
        *,
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Run any number (N > 0) of preprocessed images, batch by batch; the last batch is filled up with zeros.

        ``progress`` is told the task and the share done; ``timeout`` is for all batches together.
        """
        deadline = None if timeout is None else Deadline(timeout)
        if np.ndim(images) == 0 or not len(images):
            raise InputError("no images: give at least one")
        images, parts = np.asarray(images), []
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            missing = self.batch - len(part)
            padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part
            parts.append({name: value[: len(part)] for name, value in self._outputs(padded, deadline).items()})
            progress(task, min(1.0, (start + self.batch) / len(images)))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def preprocess(self, image: ImageLike, *, exif: bool = False) -> np.ndarray:
        """Return one image's input: (3, H, W) float32, or (H, W, 3) uint8 where the graph normalises by itself."""
        return self.prepare(self.manifest.preprocessing.pixels(image, exif=exif))

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """Turn (..., H, W, 3) uint8 pixels of the right size into the input."""
        takes_pixels = self.entry.inputs[0].dtype == "uint8"
        return pixels if takes_pixels else self.manifest.preprocessing.normalise(pixels)
