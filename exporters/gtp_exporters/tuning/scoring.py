"""Scores settings on a part of the images: one plain call, which any process with the images can answer.

A process keeps the model, and the pixels of the images that it has read as far as ``KEPT`` allows.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from gtp_exporters.options import ExportOptions
from gtp_exporters.subject import Subject, make_subject
from gtp_exporters.tuning.shards import Shard
from gtp_models.errors import WeightsError
from gtp_models.frame.patch import remove
from gtp_models.methods.apply import apply
from gtp_models.methods.settings import Settings
from gtp_models.recipes import Recipe
from gtp_runtime.accuracy import Tally, score
from gtp_runtime.errors import ImageError
from gtp_runtime.prediction import check_answers

KEPT = 1 << 29  # bytes of pixels
Read = tuple[np.ndarray, np.ndarray | None, list[str]]


@dataclass(frozen=True)
class ModelSource:
    """What a model is made of: a recipe, and ``weights`` and ``seed`` as ``gtp_models.build_model`` takes them.

    Attributes:
        sha256: that the weights must have, wherever they are read; "" asks for none.
    """

    recipe: Recipe
    weights: str = "pretrained"
    seed: int = 0
    sha256: str = field(default="", compare=False)


@dataclass(frozen=True)
class Job:
    """A part of a trial.

    Attributes:
        trial: its number, for whoever asked.
        model: the model.
        settings: how its tokens are reduced; None for the dense model.
        shard: the images.
        dense: (N, classes) float32 logits of the dense model on those of them that can be read; None if they are
            not known.
    """

    trial: int
    model: ModelSource
    settings: Settings | None
    shard: Shard
    dense: np.ndarray | None = None


def score_shard(job: Job) -> Tally:
    """Return the sums of the scores of eager PyTorch on the images, beside the dense model's.

    Raises:
        AnswerError: an answer that is not finite.
        ModelsError: the model cannot be built, or the settings do not fit it.
    """
    pixels, classes, problems = _read(job)
    tally = Tally()
    for problem in problems:
        tally.add_unreadable(problem)
    if len(pixels):
        tally.add(score(_logits(job, pixels), job.dense, classes), len(pixels))
    return tally


def answer_shard(job: Job) -> np.ndarray:
    """Return the (N, classes) float32 logits of eager PyTorch on those of the images that can be read.

    Raises:
        AnswerError, ModelsError: as ``score_shard``.
    """
    pixels, _, _ = _read(job)
    return _logits(job, pixels) if len(pixels) else np.zeros((0, subject_of(job.model).classes), np.float32)


@torch.inference_mode()
def _logits(job: Job, pixels: np.ndarray) -> np.ndarray:
    subject = subject_of(job.model)
    if job.settings is None:
        remove(subject.model)
    else:
        apply(subject.model, job.settings)
    logits = subject.model(torch.from_numpy(subject.preprocessing.normalise(pixels))).numpy()
    check_answers(logits, [f"an image of {job.shard.folder}"] * len(logits), job.model.recipe.name)
    return np.asarray(logits)


class _Process:
    """What a process keeps between calls."""

    source: ModelSource | None = None
    subject: Any = None
    pixels: ClassVar["OrderedDict[Shard, Read]"] = OrderedDict()


def subject_of(source: ModelSource) -> Subject:
    """Return the model; a process keeps the last one.

    Raises:
        WeightsError: its weights are others than those that are meant.
        ModelsError: it cannot be built.
    """
    if _Process.source != source:
        found = make_subject(source.recipe, source.weights, source.seed, ExportOptions())
        if source.sha256 and found.built.sha256 != source.sha256:
            raise WeightsError(f"the weights of {source.recipe.name} are others here than where the search runs")
        _Process.subject = found
        _Process.source = source
        _Process.pixels.clear()
    return _Process.subject


def forget() -> None:
    """Forget model and pixels: files may have changed since."""
    _Process.source = _Process.subject = None
    _Process.pixels.clear()


def _read(job: Job) -> Read:
    """Return (N, H, W, 3) uint8 pixels, (N,) classes where known, and what is wrong with the images left out."""
    preprocessing, kept = subject_of(job.model).preprocessing, _Process.pixels
    if job.shard not in kept:
        kept[job.shard] = _decoded(job.shard, preprocessing)
    kept.move_to_end(job.shard)
    while len(kept) > 1 and sum(entry[0].nbytes for entry in kept.values()) > KEPT:
        kept.popitem(last=False)
    return kept[job.shard]


def _decoded(shard: Shard, preprocessing: Any) -> Read:
    images, pixels, readable, problems = shard.images(), [], [], []
    for index in range(len(images)):
        try:
            pixels.append(preprocessing.pixels(images.path(index)))
            readable.append(index)
        except ImageError as error:
            problems.append(str(error))
    stacked = np.stack(pixels) if pixels else np.zeros((0, *preprocessing.crop, 3), np.uint8)
    return stacked, None if images.classes is None else images.classes[readable], problems
