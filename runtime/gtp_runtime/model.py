"""A loaded model: predict, run, time and validate, whatever runs it underneath."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Optional, Union

import numpy as np
from PIL import Image

from gtp_runtime import accuracy, latency, parity
from gtp_runtime.backends import Backend
from gtp_runtime.errors import BackendMissingError, InputError, ManifestError, RandomWeightsError, RandomWeightsWarning
from gtp_runtime.images import class_indices, find_images
from gtp_runtime.manifest import (
    REFERENCE_NAME,
    FileEntry,
    Manifest,
    file_sha256,
    read_manifest,
    write_manifest,
)
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
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
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
        """Run one batch: (B, 3, H, W) float32 preprocessed pixels to (B, classes) float32 logits.

        Raises:
            InputError: another shape or dtype.
        """
        return self.outputs(images)[self.entry.outputs[0].name]

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run one batch and return every output by name: ``logits``, and ``propagated`` where traced."""
        spec = self.entry.inputs[0]
        if list(images.shape) != spec.shape or images.dtype != np.dtype(spec.dtype):
            raise InputError(
                f"{self.path.name} takes {tuple(spec.shape)} {spec.dtype}, this is {images.shape} {images.dtype}: "
                "model.preprocess(image) makes one image's input; predict() and run_all() fill batches"
            )
        return self.backend.run({spec.name: images})

    def run_all(self, images: np.ndarray, progress: Progress = quiet) -> dict[str, np.ndarray]:
        """Run any number of preprocessed images, batch by batch; the last batch is filled up with zeros."""
        parts = []
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            missing = self.batch - len(part)
            padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part
            parts.append({name: value[: len(part)] for name, value in self.outputs(padded).items()})
            progress(min(1.0, (start + self.batch) / len(images)))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def preprocess(self, image: ImageLike, *, exif: bool = False) -> np.ndarray:
        """Return one image's (3, H, W) float32 input."""
        return self.manifest.preprocessing(image, exif=exif)

    def predict(
        self,
        images: Union[ImageLike, Sequence[ImageLike]],
        topk: int = 5,
        *,
        exif: bool = False,
        allow_random: bool = False,
    ) -> Union[list[Prediction], list[list[Prediction]]]:
        """Classify an image, or several.

        Args:
            images: a path, a Pillow image, an (H, W, 3) uint8 RGB array, or a list of these.
            topk: how many classes to return, best first.
            exif: turn images as their camera says; off, as in timm's evaluation.
            allow_random: answer although the weights are random.

        Returns:
            Predictions for one image, or a list of them for a list.

        Raises:
            ImageError: an image that cannot be read.
            RandomWeightsError: the weights are random.
        """
        if self.manifest.weights.source == "random" and not allow_random:
            raise RandomWeightsError(
                f"{self.manifest.model.name} has random weights, its predictions mean nothing: export it with "
                "--weights FILE, or allow them (allow_random=True, --allow-random)"
            )
        if isinstance(images, (str, Path, Image.Image, np.ndarray)):
            return self._predict([images], topk, exif)[0]
        return self._predict(list(images), topk, exif) if len(images) else []  # type: ignore[arg-type]

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
        check_sha256(path, self.manifest.entry(REFERENCE_NAME))
        return read_reference(path)

    def validate(self, progress: Progress = quiet) -> parity.Parity:
        """Compare this file with the parity pack; the report says whether every gate held.

        Raises:
            ManifestError: the pack is missing, damaged, or holds nothing of this file's role.
        """
        reference = self.reference()
        outputs = self.run_all(self.manifest.preprocessing.normalise(reference.images), progress)
        logits = outputs[self.entry.outputs[0].name]
        if self.entry.role == "dense":
            if reference.dense_logits is None:
                raise ManifestError(f"{REFERENCE_NAME} holds no answers of the dense model: export again")
            return parity.compare(
                logits,
                reference.dense_logits,
                precision=self.entry.precision,
                labels=reference.labels,
                dense_logits=reference.dense_logits,
            )
        return parity.compare(
            logits,
            reference.logits,
            precision=self.entry.precision,
            propagated=outputs.get("propagated"),
            expected_propagated=reference.propagated,
            gaps=reference.gap,
            labels=reference.labels,
            dense_logits=reference.dense_logits,
        )

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
        """Time this file alone; ``benchmark`` of several files is what compares them."""
        return benchmark([self], seconds)[0]

    def sample(self) -> np.ndarray:
        """Return one batch of input: images of the parity pack, else seeded noise."""
        spec = self.entry.inputs[0]
        if (self.path.parent / REFERENCE_NAME).exists():
            images = self.reference().images
            chosen = images[np.arange(self.batch) % len(images)]
            return self.manifest.preprocessing.normalise(chosen)
        return np.random.default_rng(0).standard_normal(spec.shape).astype(spec.dtype)

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


def load(
    path: Union[str, Path], backend: str = "auto", *, threads: Optional[int] = None, provider: str = "cpu"
) -> Model:
    """Load a file that gtp-export wrote.

    Args:
        path: the file (.onnx), or its directory, which means ``model.onnx``.
        backend: "auto" (by the file's ending) or "onnxruntime".
        threads: threads to run with; the backend's own choice without.
        provider: ONNX Runtime's: "cpu", "cuda" or "tensorrt".

    Raises:
        ManifestError: no such file, no manifest, or the file is not what its manifest says (sha256).
        BackendMissingError: what would run it is not installed.
    """
    file = Path(path)
    file = file / "model.onnx" if file.is_dir() else file
    if not file.exists():
        raise ManifestError(f"no file {file}: gtp-export export MODEL writes one")
    manifest = read_manifest(file.parent)
    check_sha256(file, manifest.entry(file.name))
    if manifest.weights.source == "random":
        warnings.warn(
            f"{file} was exported with random weights ({manifest.weights.detail}): its answers mean nothing",
            RandomWeightsWarning,
            stacklevel=2,
        )
    return Model(file, manifest, _backend(file, backend, threads, provider))


def _backend(file: Path, backend: str, threads: Optional[int], provider: str) -> Backend:
    if backend not in ("auto", "onnxruntime"):
        raise BackendMissingError(f"no backend is called {backend!r}: choose auto or onnxruntime")
    if file.suffix != ".onnx":
        raise BackendMissingError(f"nothing here runs {file.name}: give a .onnx file")
    from gtp_runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(file, threads, provider)


def check_sha256(path: Path, entry: FileEntry) -> None:
    """Raise ``ManifestError`` unless the file is what the manifest says."""
    if not path.exists():
        raise ManifestError(f"no file {path}, though the manifest lists it: export again")
    if file_sha256(path) != entry.sha256:
        raise ManifestError(f"{path} is not the file that its manifest describes (sha256 differs): export again")


def benchmark(models: Sequence[Model], seconds: float = 3.0, progress: Progress = quiet) -> list[latency.Latency]:
    """Time files in turn in this process; ratios and shares are against the first.

    Args:
        models: loaded files; put the dense twin first.
        seconds: for all together, after a warm-up.
        progress: told the share done, 0..1.
    """
    inputs = [model.sample() for model in models]
    runs = [lambda model=model, images=images: model.run(images) for model, images in zip(models, inputs, strict=True)]
    times = latency.in_turn(runs, seconds, progress)
    names = [str(model.path) for model in models]
    results = [
        latency.summarise(name, model.batch, taken) for name, model, taken in zip(names, models, times, strict=True)
    ]
    entries = [model.entry for model in models]
    return latency.against_first(results, [entry.macs for entry in entries], [entry.method for entry in entries])


def evaluate(
    model: Model, dense: Optional[Model], folder: Path, progress: Progress = quiet
) -> accuracy.Accuracy:
    """Accuracy on an image folder, one sub-folder a class, beside the dense twin's.

    Raises:
        ImageError: no images, unreadable ones, or sub-folders that are no classes.
    """
    paths, manifest = find_images(folder), model.manifest
    found = class_indices(folder, paths, manifest.labels, manifest.label_ids, manifest.model.num_classes)
    labels = None if found is None else np.asarray(found)
    half = 2 if dense is not None else 1
    logits = model.logits_of(paths, lambda share: progress(share / half))
    twin = dense.logits_of(paths, lambda share: progress((1 + share) / 2)) if dense is not None else None
    return accuracy.measure(logits, twin, labels)
