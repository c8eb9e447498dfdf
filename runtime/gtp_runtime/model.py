"""A loaded model: predict, validate and benchmark, with any backend."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np

from gtp_runtime import latency, parity, recording, selftest, validating
from gtp_runtime.errors import InputError, NoClassesError
from gtp_runtime.images.decoding import ImageLike
from gtp_runtime.manifest import REFERENCE_NAME, check_file
from gtp_runtime.prediction import (
    Answer,
    Prediction,
    best_classes,
    check_answers,
    check_topk,
    check_weights,
    count_workers,
    predict_each,
)
from gtp_runtime.progress import Progress, quiet
from gtp_runtime.reference import Reference, read_reference
from gtp_runtime.running import Runner


class Model(Runner):
    """A file of an artifact directory, loaded; made by ``load``. ``run`` is safe to call from several threads.

    ``Runner`` has the attributes, and what runs images: ``run``, ``outputs``, ``run_all``, ``preprocess``, ``close``.
    """

    def predict(
        self,
        images: ImageLike | Sequence[ImageLike],
        topk: int = 5,
        *,
        exif: bool = False,
        allow_random: bool = False,
        timeout: float | None = None,
    ) -> list[Any]:
        """Classify an image, or several.

        Args:
            images: a path, the bytes of an image file, an open file, a Pillow image, an (H, W, 3) uint8 RGB array, or a
                list of these. ``gtp_runtime.from_bgr`` and ``from_nv12`` make arrays of a camera's frames.
            topk: number of classes to return, best first; 1 or more.
            exif: rotate images by their EXIF orientation; off by default, as in timm's evaluation.
            allow_random: predict even if the weights are random.
            timeout: seconds that running all the images together may take, without reading them; None for any.

        Returns:
            A list of ``Prediction`` for one image, a list of such lists for a list of images.

        Raises:
            NoClassesError: the model outputs features.
            ImageError: an image cannot be read.
            InputError: an invalid ``topk``.
            RandomWeightsError: the weights are random.
            AnswerError: an output is not finite.
            DeadlineError, DeviceError: as ``run``.
        """
        self._check_prediction(topk, allow_random)
        several = isinstance(images, list | tuple)
        listed: Sequence[Any] = images if isinstance(images, list | tuple) else [images]
        if not listed:
            return []
        pixels = np.stack([self.preprocess(image, exif=exif) for image in listed])
        answers = best_classes(self.logits(pixels, listed, timeout=timeout), self.manifest.labels, topk)
        return answers if several else answers[0]

    def predict_each(
        self,
        images: Iterable[ImageLike],
        topk: int = 5,
        *,
        exif: bool = False,
        allow_random: bool = False,
        workers: int | None = None,
    ) -> Iterator[tuple[ImageLike, Answer]]:
        """Classify any number of images in bounded memory, each on its own.

        Args:
            images: taken one by one, a few ahead of the answers; for frames of a camera ``predict`` has less delay.
            topk, exif, allow_random: as in ``predict``.
            workers: threads that read images; None is one for each CPU.

        Returns:
            An iterator over the images, in order: each with its predictions, or with the ``ImageError`` that says why
            it cannot be read.

        Raises:
            NoClassesError, InputError, RandomWeightsError: at once, as ``predict``; also ``workers`` below 1.
            AnswerError: an answer that is not finite.
        """
        self._check_prediction(topk, allow_random)

        def read(image: ImageLike) -> np.ndarray:
            return self.preprocess(image, exif=exif)

        def classify(pixels: np.ndarray, names: list[ImageLike]) -> list[list[Prediction]]:
            return best_classes(self.logits(pixels, names), self.manifest.labels, topk)

        return predict_each(images, read, classify, self.batch, count_workers(workers))

    def _check_prediction(self, topk: int, allow_random: bool) -> None:
        self.check_classes("a prediction")
        check_topk(topk)
        if not allow_random:
            check_weights(self.manifest)

    def check_classes(self, task: str) -> None:
        """Raise ``NoClassesError`` if the model outputs features, because ``task`` needs classes."""
        if self.manifest.gives_features:
            raise NoClassesError(
                f"{self.manifest.model.name} outputs features, but {task} needs classes: use run(pixels) to get the "
                "features, or export a model that has a classifier, without --head none"
            )

    def reference(self) -> Reference:
        """Return the reference (parity pack) of the directory.

        Raises:
            ManifestError: it is missing or differs from the manifest.
        """
        path = self.path.parent / REFERENCE_NAME
        check_file(path, self.manifest)
        return read_reference(path)

    def validate(self, progress: Progress = quiet, min_kept: float | None = None) -> parity.Parity:
        """Compare the outputs of this file with the reference; the report says whether every gate passed.

        Args:
            progress: called with "validating" and the share done.
            min_kept: minimum share of images, 0..1, whose kept sets agree; default: by precision
                (``gtp_runtime.precisions.PRECISIONS``).

        Raises:
            ManifestError: the reference is missing, damaged, of another export, or has no outputs for this file.
            InputError: an invalid ``min_kept``.
        """
        return validating.validate(self, progress, min_kept)

    def selftest(self, progress: Progress = quiet, min_kept: float | None = None) -> parity.Parity:
        """Check at start-up that this file answers on this device as its parity pack says.

        Args:
            progress, min_kept: as in ``validate``.

        Raises:
            SelfTestError: a gate failed; its ``parity`` is the report.
            ManifestError, InputError: as ``validate``.
        """
        return selftest.selftest(self, progress, min_kept)

    def logits_of(
        self, paths: Sequence[str | PathLike[str]], progress: Progress = quiet, task: str = "running images"
    ) -> np.ndarray:
        """Return the logits (N, classes) of image files, N > 0, reading a batch at a time.

        Raises:
            ImageError: an image that cannot be read.
            AnswerError: an answer that is not finite.
        """
        if not len(paths):
            raise InputError("no images: give at least one")
        parts = []
        for start in range(0, len(paths), self.batch):
            part = paths[start : start + self.batch]
            parts.append(self.logits(np.stack([self.preprocess(path) for path in part]), part))
            progress(task, min(1.0, (start + self.batch) / len(paths)))
        return np.concatenate(parts)

    def logits(self, pixels: np.ndarray, images: Sequence[object], *, timeout: float | None = None) -> np.ndarray:
        """Return the logits (N, classes) of preprocessed images, N > 0; ``images`` names them in an error.

        Raises:
            AnswerError: an answer that is not finite.
        """
        logits = self.run_all(pixels, timeout=timeout)[self.entry.outputs[0].name]
        check_answers(logits, images, self.path.name)
        return logits

    def warmup(self, runs: int = 3) -> None:
        """Run a few times as a warm-up."""
        images = self.sample()
        for _ in range(runs):
            self.run(images)

    def benchmark(self, seconds: float = 3.0) -> latency.Latency:
        """Time this file alone; to compare several files, use ``gtp_runtime.benchmark``."""
        return latency.benchmark([self], seconds)[0]

    def timed(self) -> Callable[[], object]:
        """Return a callable that runs one batch of the sample, for timing."""
        images = self.sample()
        return lambda: self.run(images)

    def stages(self) -> dict[str, float] | None:
        """Median milliseconds of an engine's stages (see ``Latency.stages``); None for other backends."""
        measure = getattr(self.backend, "stages", None)
        if measure is None:
            return None
        inputs = {self.entry.inputs[0].name: self.sample()}
        return latency.median_stages(lambda: measure(inputs))

    def sample(self) -> np.ndarray:
        """Return one batch of input: images of the reference, else seeded noise."""
        spec = self.entry.inputs[0]
        if (self.path.parent / REFERENCE_NAME).exists():
            images = self.reference().images
            chosen = images[np.arange(self.batch) % len(images)]
            return self.prepare(chosen)
        return (np.random.default_rng(0).random(spec.shape) * 255).astype(spec.dtype)

    def record(self, kind: str, result: dict[str, Any]) -> bool:
        """Store a result ("parity", "latency") in the manifest.

        Returns:
            False if the manifest cannot be written, or the file was replaced by another since it was loaded.
        """
        return recording.record(self.path, self.entry.sha256, kind, result)
