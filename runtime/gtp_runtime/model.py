"""A loaded model: runs images, predicts, validates and is timed, with any backend."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import numpy as np

from gtp_runtime import latency, parity
from gtp_runtime.backends import Backend
from gtp_runtime.backends.spec import Deadline
from gtp_runtime.batches import runs, worst_outputs
from gtp_runtime.deploy.watch import Stats, Watch
from gtp_runtime.errors import (
    DeadlineError,
    GTPRuntimeError,
    ImageError,
    InputError,
    ManifestError,
    NoClassesError,
    SelfTestError,
)
from gtp_runtime.images.decoding import ImageLike
from gtp_runtime.manifest import REFERENCE_NAME, BatchRange, FileEntry, Manifest, check_file
from gtp_runtime.messages import Progress, quiet
from gtp_runtime.placement import Placement
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
from gtp_runtime.recording import record
from gtp_runtime.reference import Reference, check_fits, read_reference

log = logging.getLogger(__name__)
Self = TypeVar("Self", bound="Model")  # typing.Self needs Python 3.11


class Model:
    """A file of an artifact directory, loaded; made by ``load``. ``run`` is safe to call from several threads.

    Attributes:
        path: the file.
        manifest: the manifest of its directory.
        entry: the entry of this file in the manifest.
        backend: the backend that runs it.
        options: how: the backend's own dataclass.
        fallback: why another file of the directory does not run, which would have been taken first; "" if it is the
            first.
    """

    fallback: str = ""

    def __init__(
        self, path: Path, manifest: Manifest, backend: Backend, options: Any, check_inputs: bool = False
    ) -> None:
        self.path, self.manifest, self.backend, self.options = path, manifest, backend, options
        self.entry: FileEntry = manifest.entry(path.name)
        self._check_inputs, self._process, self._watch = check_inputs, os.getpid(), Watch(str(path))
        self._batch = self.batches.min

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
    def device(self) -> str:
        """What computes: "CPU", the name of the GPU of an engine, OpenVINO's device, or an execution provider."""
        info = self.backend.info
        provider = info.get("provider", "cpu")
        return str(info.get("gpu") or info.get("device") or ("CPU" if provider == "cpu" else provider))

    def placement(self) -> Placement | None:
        """Return how many operators run where, and which fell back from the device that was asked for.

        Returns:
            None where one device alone could run them: a CPU, an engine.

        Raises:
            DeviceError: ONNX Runtime before 1.24 runs the file once to tell, and cannot.
        """
        placement = getattr(self.backend, "placement", None)
        return None if placement is None else placement()

    def answered(self) -> dict[str, Any]:
        """Return what answers: "file", "backend", "device" and "fallback", as every result names them."""
        return {
            "file": str(self.path),
            "backend": self.backend.name,
            "device": self.device,
            "fallback": self.fallback,
        }

    def __str__(self) -> str:
        version = self.backend.info.get("version", "")
        return f"{self.path.name} with {self.backend.name} {version}".rstrip() + f" on {self.device}"

    @property
    def batches(self) -> BatchRange:
        """How many images a run takes, from the fewest to the most; one number, unless exported with a range."""
        return self.entry.batches

    @property
    def batch(self) -> int:
        """Images of a run that is timed: the fewest, unless ``use_batch`` chose others."""
        return self._batch

    def use_batch(self, images: int) -> None:
        """Choose how many images a run has that is timed (``benchmark``, ``sample``).

        Raises:
            InputError: a run does not take that many.
        """
        if isinstance(images, bool) or not isinstance(images, int) or images not in self.batches:
            raise InputError(f"batch={images!r}: a run of {self.path.name} takes {self.batches} images")
        self._batch = images

    def run(self, images: np.ndarray, *, timeout: float | None = None) -> np.ndarray:
        """Run one batch: (B, 3, H, W) float32 preprocessed pixels to (B, classes) float32 logits, or to
        (B, dim) features where the model has no classifier; of several outputs to the first.

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
        """Run one batch as ``run`` does, and return every output by name: ``logits`` (``features``, ``map_11``, …), and
        ``propagated`` where traced.
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
        fits = images.ndim == len(spec.shape) and len(images) in self.batches and [*images.shape[1:]] == spec.shape[1:]
        if not fits or images.dtype != np.dtype(spec.dtype):
            takes = f"({', '.join(map(str, [self.batches, *spec.shape[1:]]))})"
            raise InputError(
                f"{self.path.name} takes {takes} {spec.dtype}, this is {images.shape} {images.dtype}: "
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
        """Run any number (N > 0) of preprocessed images, batch by batch; the last batch is filled up with zeros where a
        run takes more images.

        ``progress`` is told the task and the share done; ``timeout`` is for all batches together.
        """
        deadline = None if timeout is None else Deadline(timeout)
        if np.ndim(images) == 0 or not len(images):
            raise InputError("no images: give at least one")
        images, parts, done = np.asarray(images), [], 0
        for batch, count in runs(images, self.batches):
            parts.append({name: value[:count] for name, value in self._outputs(batch, deadline).items()})
            done += count
            progress(task, done / len(images))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def preprocess(self, image: ImageLike, *, exif: bool | None = None) -> np.ndarray:
        """Return one image's input: (3, H, W) float32, or (H, W, 3) uint8 where the graph normalises by itself."""
        return self.prepare(self.manifest.preprocessing.pixels(image, exif=exif))

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """Turn (..., H, W, 3) uint8 pixels of the right size into the input."""
        takes_pixels = self.entry.inputs[0].dtype == "uint8"
        return pixels if takes_pixels else self.manifest.preprocessing.normalise(pixels)

    def predict(
        self,
        images: ImageLike | Sequence[ImageLike],
        topk: int = 5,
        *,
        exif: bool | None = None,
        allow_random: bool = False,
        timeout: float | None = None,
    ) -> list[Any]:
        """Classify an image, or several.

        Args:
            images: a path, the bytes of an image file, an open file, a Pillow image, an (H, W, 3) uint8 RGB array, or a
                list of these. ``gtp_runtime.from_bgr`` and ``from_nv12`` make arrays of a camera's frames.
            topk: number of classes to return, best first; 1 or more.
            exif: rotate images by their EXIF orientation, or not (default: as ``preprocessing.exif`` of the manifest
                says; timm's evaluation does not).
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
        answers = self._best(self.logits(pixels, listed, timeout=timeout), topk)
        return answers if several else answers[0]

    def predict_each(
        self,
        images: Iterable[ImageLike],
        topk: int = 5,
        *,
        exif: bool | None = None,
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

        def classify(pixels: np.ndarray, names: list[ImageLike]) -> list[list[Prediction]]:
            return self._best(self.logits(pixels, names), topk)

        return predict_each(
            images, partial(self.preprocess, exif=exif), classify, self.batches.max, count_workers(workers)
        )

    def features(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        exif: bool | None = None,
        allow_random: bool = False,
        timeout: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Return what a model without classes gives for images: (N, ...) float32 by the name of the output.

        Args:
            images, exif, allow_random, timeout: as in ``predict``; one image is N = 1.

        Returns:
            ``features`` (N, dim), ``patches`` (N, patches, dim) or ``map`` (N, dim, rows, columns), by layer where the
            export has several: ``map_2``, ``map_5``.

        Raises:
            InputError: no images, or the model gives logits.
            ImageError, RandomWeightsError, AnswerError, DeadlineError, DeviceError: as ``predict``.
        """
        self._check_features(allow_random)
        listed: Sequence[Any] = images if isinstance(images, list | tuple) else [images]
        if not listed:
            raise InputError("no images: give at least one")
        pixels = np.stack([self.preprocess(image, exif=exif) for image in listed])
        return self.answers(pixels, listed, timeout=timeout)

    def features_each(
        self,
        images: Iterable[ImageLike],
        *,
        exif: bool | None = None,
        allow_random: bool = False,
        workers: int | None = None,
    ) -> Iterator[tuple[ImageLike, dict[str, np.ndarray] | ImageError]]:
        """Return what ``features`` gives for any number of images, one by one in bounded memory, as ``predict_each``.

        Each output is that of one image, (...,) without the axis of images.
        """
        self._check_features(allow_random)

        def embed(pixels: np.ndarray, names: list[ImageLike]) -> list[dict[str, np.ndarray]]:
            outputs = self.answers(pixels, names)
            return [{name: values[row] for name, values in outputs.items()} for row in range(len(pixels))]

        return predict_each(
            images, partial(self.preprocess, exif=exif), embed, self.batches.max, count_workers(workers)
        )

    def _check_features(self, allow_random: bool) -> None:
        if not self.manifest.gives_features:
            raise InputError(f"{self.path.name} gives logits: export the model with --output features, patches or map")
        if not allow_random:
            check_weights(self.manifest)

    def answers(
        self, pixels: np.ndarray, images: Sequence[object], *, timeout: float | None = None
    ) -> dict[str, np.ndarray]:
        """Return every answer (N, ...) of preprocessed images, N > 0, by name; ``images`` names them in an error.

        Raises:
            AnswerError: an answer that is not finite.
        """
        outputs = self.run_all(pixels, timeout=timeout)
        answers = {spec.name: outputs[spec.name] for spec in self.entry.answers}
        for values in answers.values():
            check_answers(values, images, self.path.name)
        return answers

    def _best(self, logits: np.ndarray, topk: int) -> list[list[Prediction]]:
        return best_classes(logits, self.manifest.labels, topk, self.manifest.model.activation)

    def _check_prediction(self, topk: int, allow_random: bool) -> None:
        self.check_classes("a prediction")
        check_topk(topk)
        if not allow_random:
            check_weights(self.manifest)

    def check_classes(self, task: str) -> None:
        """Raise ``NoClassesError`` if the model outputs features, because ``task`` needs classes."""
        if self.manifest.gives_features:
            raise NoClassesError(
                f"{self.manifest.model.name} outputs features, but {task} needs classes: use features(image) or "
                "gtp-export embed, or export a model that has a classifier, with --output logits"
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
        precision = self._precision()
        parity.limits_of(precision, min_kept)  # what is wrong with them is said before the work
        reference, dense = self.reference(), self.entry.role == "dense"
        check_fits(reference, self.manifest, self.entry)
        expected = reference.dense_outputs if dense else reference.outputs
        if expected is None:
            raise ManifestError(f"{REFERENCE_NAME} has no outputs of the dense model: export again")
        images = self.prepare(reference.images)
        if self.entry.batch is None:
            outputs = self.run_all(images, progress, "validating")
        else:
            outputs = worst_outputs(self.outputs, images, self.batches, expected, progress)
        report = parity.compare(
            {name: outputs[name] for name in expected},
            expected,
            precision,
            reference.labels,
            reference.dense_outputs,
            None if dense else _kept_sets(outputs, reference),
            classes=not self.manifest.gives_features,
            min_kept=min_kept,
            activation=self.manifest.model.activation,
        )
        report.notes.extend(parity.cautions(self.entry.quantization, self.backend.name, self.backend.info))
        return report

    def _precision(self) -> str:
        """What the file's answers are computed in: the backend's where it is lower than the file's."""
        compute, written = str(self.backend.info.get("compute", "fp32")), self.entry.precision
        lower = parity.limits_of(compute).error >= parity.limits_of(written).error
        return compute if compute != "fp32" and lower else written

    def selftest(self, progress: Progress = quiet, min_kept: float | None = None) -> parity.Parity:
        """Check at start-up that this file answers on this device as its parity pack says.

        Args:
            progress, min_kept: as in ``validate``.

        Raises:
            SelfTestError: a gate failed; its ``parity`` is the report.
            ManifestError, InputError: as ``validate``.
        """
        start = time.perf_counter()
        report = self.validate(progress, min_kept)
        if not report.ok:
            raise SelfTestError(
                f"{self.path.name} fails its self-test with {self.backend.name}: "
                f"{'; '.join([report.problems[0], *report.notes])}; do not use it here: gtp-export validate DIR shows "
                "every gate",
                report,
            )
        log.info("self-test of %s: %d images in %.2f s", self.path, report.images, time.perf_counter() - start)
        return report

    def logits(self, pixels: np.ndarray, images: Sequence[object], *, timeout: float | None = None) -> np.ndarray:
        """Return the logits (N, classes) of preprocessed images, N > 0; ``images`` names them in an error.

        Raises:
            AnswerError: an answer that is not finite.
        """
        return self.answers(pixels, images, timeout=timeout)[self.entry.outputs[0].name]

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
        return (np.random.default_rng(0).random((self.batch, *spec.shape[1:])) * 255).astype(spec.dtype)

    def record(self, kind: str, result: dict[str, Any]) -> bool:
        """Store a result ("parity", "latency") in the manifest; see ``record``."""
        return record(self.path, self.entry.sha256, kind, result)


def _kept_sets(outputs: dict[str, np.ndarray], reference: Reference) -> parity.KeptSets | None:
    if not reference.gap:
        return None
    tokens = reference.kept[0].shape[1] + reference.propagated[0].shape[1]
    propagated, receivers = outputs.get("propagated"), outputs.get("received_by")
    return parity.KeptSets(propagated, reference.propagated, reference.gap, tokens, receivers, reference.received_by)
