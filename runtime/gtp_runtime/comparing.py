"""Compares loaded files: latency in turn, accuracy beside the dense twin."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gtp_runtime import accuracy, latency
from gtp_runtime.images import class_indices, find_images
from gtp_runtime.model import Model, Progress, quiet


def benchmark(
    models: Sequence[Model], seconds: float = 3.0, progress: Progress = quiet, rounds: int = latency.MIN_RUNS
) -> list[latency.Latency]:
    """Time files in turn in this process; ratios and shares are against the first.

    Args:
        models: loaded files; put the dense twin first.
        seconds: for all together, after a warm-up.
        progress: told the share done, 0..1.
        rounds: how often each runs at least, however long that takes.
    """
    times = latency.in_turn([model.timed() for model in models], seconds, progress, rounds)
    results = [
        latency.summarise(str(model.path), model.batch, taken) for model, taken in zip(models, times, strict=True)
    ]
    results = [replace(result, stages=model.stages()) for result, model in zip(results, models, strict=True)]
    entries = [model.entry for model in models]
    return latency.against_first(results, [entry.macs for entry in entries], [entry.method for entry in entries])


def evaluate(model: Model, dense: Model | None, folder: Path, progress: Progress = quiet) -> accuracy.Accuracy:
    """Accuracy on an image folder, one sub-folder a class, beside the dense twin's.

    Raises:
        NoClassesError: a model that gives features.
        ImageError: no images, unreadable ones, or sub-folders that are no classes.
    """
    model.check_classes("accuracy")
    paths, manifest = find_images(folder), model.manifest
    found = class_indices(folder, paths, manifest.labels, manifest.label_ids, manifest.model.num_classes)
    labels = None if found is None else np.asarray(found)
    half = 2 if dense is not None else 1
    logits = model.logits_of(paths, lambda share: progress(share / half))
    twin = dense.logits_of(paths, lambda share: progress((1 + share) / 2)) if dense is not None else None
    return accuracy.measure(logits, twin, labels)
