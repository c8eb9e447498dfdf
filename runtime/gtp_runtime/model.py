"""A loaded model: predict, run, time and validate, whatever runs it underneath."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gtp_runtime import latency, parity
from gtp_runtime.backends import Backend
from gtp_runtime.errors import InputError, ManifestError, NoClassesError, RandomWeightsError
from gtp_runtime.manifest import REFERENCE_NAME, FileEntry, Manifest, check_file, read_manifest, write_manifest
from gtp_runtime.preprocessing import ImageLike
from gtp_runtime.reference import Reference, read_reference

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Prediction:
    """A class that an image may show; ``label`` is its name, or its number where names are unknown."""

    label: str
    index: int
    probability: float


def quiet(_share: float) -> None:
    """Show no progress."""


class Model:
    """A file of an artifact directory, loaded; made by ``load``. ``run`` is safe to call from several threads.

    Attributes:
        path: the file.
        manifest: what its directory's ``model.json`` says.
        entry: what that says of this file.
        backend: what runs it.
    """

    def __init__(self, path: Path, manifest: Manifest, backend: Backend) -> None:
        self.path, self.manifest, self.backend = path, manifest, backend
        self.entry: FileEntry = manifest.entry(path.name)

    def __enter__(self) -> "Model":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free what the backend holds."""
        self.backend.close()

    @property
    def batch(self) -> int:
        """Images a run."""
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

    def run_all(self, images: np.ndarray, progress: Progress = quiet) -> dict[str, np.ndarray]:
        """Run any number of preprocessed images, batch by batch; the last batch is filled up with zeros."""
        if not len(images):
            raise InputError("no images: give at least one")
        parts = []
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            missing = self.batch - len(part)
            padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part
            parts.append({name: value[: len(part)] for name, value in self.outputs(padded).items()})
            progress(min(1.0, (start + self.batch) / len(images)))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def preprocess(self, image: ImageLike, *, exif: bool = False) -> np.ndarray:
        """Return one image's input: (3, H, W) float32, or (H, W, 3) uint8 where the graph normalises by itself."""
        return self.prepare(self.manifest.preprocessing.pixels(image, exif=exif))

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """Turn (..., H, W, 3) uint8 pixels of the right size into the input."""
        takes_pixels = self.entry.inputs[0].dtype == "uint8"
        return pixels if takes_pixels else self.manifest.preprocessing.normalise(pixels)

    def predict(
        self, images: ImageLike | Sequence[ImageLike], topk: int = 5, *, exif: bool = False, allow_random: bool = False
    ) -> list[Any]:
        """Classify an image, or several.

        Args:
            images: a path, a Pillow image, an (H, W, 3) uint8 RGB array, or a list of these.
            topk: how many classes to return, best first.
            exif: turn images as their camera says; off, as in timm's evaluation.
            allow_random: answer although the weights are random.

        Returns:
            A list of ``Prediction`` for one image, a list of such lists for a list of images.

        Raises:
            NoClassesError: the model gives features.
            ImageError: an image that cannot be read.
            RandomWeightsError: the weights are random.
        """
        self.check_classes("a prediction")
        if topk < 1:
            raise InputError(f"topk={topk}: give at least 1")
        if self.manifest.weights.source == "random" and not allow_random:
            raise RandomWeightsError(
                f"{self.manifest.model.name} has random weights, its predictions mean nothing: export it with "
                "--weights FILE, or allow them (allow_random=True, --allow-random)"
            )
        if isinstance(images, list | tuple):
            return self._predict(images, topk, exif) if images else []
        return self._predict([images], topk, exif)[0]  # type: ignore[list-item]

    def check_classes(self, task: str) -> None:
        """Raise ``NoClassesError`` where the model gives features, so that ``task`` has no classes to go by."""
        if self.manifest.gives_features:
            raise NoClassesError(
                f"{self.manifest.model.name} gives features, and {task} needs classes: run(pixels) returns the "
                "features; for classes export a model that has a classifier, without --head none"
            )

    def _predict(self, images: Sequence[ImageLike], topk: int, exif: bool) -> list[list[Prediction]]:
        pixels = np.stack([self.preprocess(image, exif=exif) for image in images])
        logits = self.run_all(pixels)[self.entry.outputs[0].name]
        return [self._best(row, topk) for row in parity.log_softmax(logits)]

    def _best(self, log_probabilities: np.ndarray, topk: int) -> list[Prediction]:
        labels = self.manifest.labels
        order = np.argsort(-log_probabilities, kind="stable")[:topk]
        return [
            Prediction(labels[index] if labels else str(index), int(index), float(np.exp(log_probabilities[index])))
            for index in order
        ]

    def reference(self) -> Reference:
        """Return the directory's parity pack.

        Raises:
            ManifestError: it is missing or not what the manifest says.
        """
        path = self.path.parent / REFERENCE_NAME
        check_file(path, self.manifest)
        return read_reference(path)

    def validate(self, progress: Progress = quiet) -> parity.Parity:
        """Compare this file with the parity pack; the report says whether every gate held.

        Raises:
            ManifestError: the pack is missing, damaged, or holds nothing of this file's role.
        """
        reference = self.reference()
        outputs = self.run_all(self.prepare(reference.images), progress)
        answers = outputs[self.entry.outputs[0].name]
        precision = self.backend.info.get("compute", "fp32")
        precision = self.entry.precision if precision == "fp32" else precision
        classes = not self.manifest.gives_features
        common = (precision, reference.labels, reference.dense_answers)
        if self.entry.role != "dense":
            kept = parity.KeptSets(outputs.get("propagated"), reference.propagated, reference.gap)
            return parity.compare(answers, reference.answers, *common, kept, classes=classes)
        if reference.dense_answers is None:
            raise ManifestError(f"{REFERENCE_NAME} holds no answers of the dense model: export again")
        return parity.compare(answers, reference.dense_answers, *common, classes=classes)

    def logits_of(self, paths: Sequence[Path], progress: Progress = quiet) -> np.ndarray:
        """Return the logits (N, classes) of image files, reading a batch at a time."""
        parts = []
        for start in range(0, len(paths), self.batch):
            pixels = np.stack([self.preprocess(path) for path in paths[start : start + self.batch]])
            parts.append(self.run_all(pixels)[self.entry.outputs[0].name])
            progress(min(1.0, (start + self.batch) / len(paths)))
        return np.concatenate(parts)

    def warmup(self, runs: int = 3) -> None:
        """Run a few times, so that later runs are not the first."""
        images = self.sample()
        for _ in range(runs):
            self.run(images)

    def benchmark(self, seconds: float = 3.0) -> latency.Latency:
        """Time this file alone; ``gtp_runtime.benchmark`` of several files is what compares them."""
        taken = latency.in_turn([self.timed()], seconds)[0]
        return latency.summarise(str(self.path), self.batch, taken)

    def timed(self) -> Callable[[], object]:
        """Return a callable that runs one batch of the sample: what latency is measured of."""
        images = self.sample()
        return lambda: self.run(images)

    def stages(self) -> dict[str, float] | None:
        """Median milliseconds of an engine's parts (see ``Latency.stages``); None for other backends."""
        measure = getattr(self.backend, "stages", None)
        if measure is None:
            return None
        inputs = {self.entry.inputs[0].name: self.sample()}
        return latency.median_stages(lambda: measure(inputs))

    def sample(self) -> np.ndarray:
        """Return one batch of input: images of the parity pack, else seeded noise."""
        spec = self.entry.inputs[0]
        if (self.path.parent / REFERENCE_NAME).exists():
            images = self.reference().images
            chosen = images[np.arange(self.batch) % len(images)]
            return self.prepare(chosen)
        return (np.random.default_rng(0).random(spec.shape) * 255).astype(spec.dtype)

    def record(self, kind: str, result: dict[str, Any]) -> bool:
        """Keep a result ("parity", "latency") in the manifest; False where the directory cannot be written."""
        current = read_manifest(self.path.parent)
        results = {name: dict(files) for name, files in current.results.items()}
        results.setdefault(kind, {})[self.path.name] = result
        try:
            write_manifest(replace(current, results=results), self.path.parent)
        except OSError:
            return False
        return True
