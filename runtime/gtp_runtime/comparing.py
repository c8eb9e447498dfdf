"""Compares loaded files: latency in interleaved runs, and accuracy against the dense baseline."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np

from gtp_runtime import accuracy, latency, timing
from gtp_runtime.class_folders import class_indices
from gtp_runtime.errors import InputError
from gtp_runtime.images import find_images
from gtp_runtime.model import Model
from gtp_runtime.progress import Progress, quiet


def benchmark(
    models: Sequence[Model], seconds: float = 3.0, progress: Progress = quiet, rounds: int = timing.MIN_RUNS
) -> list[latency.Latency]:
    """Time files in interleaved runs in this process; ratios and shares are relative to the first.

    Args:
        models: loaded files; put the dense baseline first.
        seconds: timing of all files together, after a warm-up; 0 or more.
        progress: called with "benchmarking" and the share done.
        rounds: minimum number of runs of each file, even if ``seconds`` is exceeded; 1 or more.

    Raises:
        InputError: no loaded files, files of different batch sizes, or an invalid value of ``seconds`` or ``rounds``.
    """
    timing.check_duration(seconds, rounds)
    if not all(isinstance(model, Model) for model in models):
        raise InputError("benchmark takes loaded models: load each file with gtp_runtime.load(path)")
    _check_batches(models)
    times = timing.in_turn([model.timed() for model in models], seconds, progress, rounds)
    results = [
        latency.summarise(str(model.path), model.batch, taken) for model, taken in zip(models, times, strict=True)
    ]
    results = [replace(result, stages=model.stages()) for result, model in zip(results, models, strict=True)]
    entries = [model.entry for model in models]
    return latency.against_first(results, [entry.macs for entry in entries], [entry.method for entry in entries])


def _check_batches(models: Sequence[Model]) -> None:
    """Check that all files have one batch size: otherwise the time of a run cannot be compared.

    Raises:
        InputError: they differ.
    """
    if len({model.batch for model in models}) > 1:
        said = ", ".join(f"{model.path}: {model.batch}" for model in models)
        raise InputError(f"files of different batch sizes cannot be compared ({said}): give files of one batch size")


def record_latency(models: Sequence[Model], results: Sequence[latency.Latency]) -> bool:
    """Store what ``benchmark`` measured in the manifest of each file; "against" names the file compared with.

    Returns:
        Whether all were stored: see ``Model.record``.
    """
    kept = []
    for model, result in zip(models, results, strict=True):
        first = models[0].path
        against = first.name if first.parent == model.path.parent else str(first)
        found = {**result.to_dict(), "file": model.path.name, "against": against, **model.backend.info}
        kept.append(model.record("latency", found))
    return all(kept)


def evaluate(
    model: Model,
    dense: Model | None,
    folder: str | PathLike[str],
    progress: Progress = quiet,
    *,
    by_order: bool = False,
) -> accuracy.Accuracy:
    """Measure accuracy on an image folder with one sub-folder per class, compared with the dense baseline.

    Args:
        model: the loaded file.
        dense: its dense baseline; None if there is none.
        folder: see ``class_indices`` for the names of sub-folders; images in the folder itself have no class.
        progress: called with "measuring accuracy" and the share done.
        by_order: sub-folders in alphabetical order are the classes 0, 1, ..., whatever their names.

    Raises:
        NoClassesError: the model outputs features.
        ImageError: there are no images, an image cannot be read, or sub-folders are not classes.
        InputError: the folder is not a path.
        AnswerError: an output is not finite.
    """
    model.check_classes("accuracy")
    paths, manifest = find_images(folder), model.manifest
    classes = class_indices(
        Path(folder), paths, manifest.labels, manifest.label_ids, manifest.model.num_classes, by_order
    )
    order = _folders(Path(folder), paths, classes) if by_order else None
    halves = 1 if dense is None else 2

    def half(number: int) -> Progress:
        return lambda task, share=None: progress(task, None if share is None else (number + share) / halves)

    logits = model.logits_of(paths, half(0), "measuring accuracy")
    dense_logits = None if dense is None else dense.logits_of(paths, half(1), "measuring accuracy")
    return accuracy.measure(logits, dense_logits, None if classes is None else np.asarray(classes), order)


def _folders(folder: Path, paths: Sequence[Path], classes: Sequence[int] | None) -> dict[str, int]:
    """Return the class of each sub-folder."""
    if classes is None:
        raise InputError(f"--by-order (by_order) needs one sub-folder per class, but images are in {folder} itself")
    return {path.relative_to(folder).parts[0]: index for path, index in zip(paths, classes, strict=True)}
