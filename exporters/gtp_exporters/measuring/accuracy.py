"""How near candidates answer to the dense model, and how accurate they are.

Eager PyTorch answers for settings (``Judge``): on a growing part of the images, in shards that any process with the
images can do. Exported graphs answer for themselves (``graph_losses``), on a whole folder that is read once for all.
"""

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from gtp_exporters.measuring.candidate import Running
from gtp_exporters.measuring.graphs import Source, subject_of
from gtp_exporters.measuring.result import DIVERGENCE, Distance, Loss, scores_beside
from gtp_exporters.measuring.shards import Shard, Split, Workers, rungs
from gtp_models.frame.patch import remove
from gtp_models.methods.apply import apply
from gtp_models.methods.settings import Settings
from gtp_runtime import ImageSet, Model, atomic, load
from gtp_runtime.accuracy import Accuracy, Tally
from gtp_runtime.errors import ImageError, RandomWeightsWarning
from gtp_runtime.evaluation import evaluate_each
from gtp_runtime.fleet import Fleet, fleet_scoring
from gtp_runtime.messages import Progress, quiet
from gtp_runtime.prediction import check_answers

KEPT = 1 << 29  # bytes of pixels that a process keeps
Read = tuple[np.ndarray, np.ndarray | None, list[str]]


@dataclass(frozen=True)
class Job:
    """Settings on a shard, for a worker.

    Attributes:
        number: of the candidate, for whoever asked.
        source: the model.
        settings: how its tokens are reduced; None for the dense model.
        shard: the images.
        dense: (N, ...) float32 outputs of the dense model on those of them that can be read; None if not known.
        distance: of the outputs.
    """

    number: int
    source: Source
    settings: Settings | None
    shard: Shard
    dense: np.ndarray | None = None
    distance: Distance = DIVERGENCE


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
        outputs = _outputs(job, pixels)
        subject = subject_of(job.source)
        scores = scores_beside(outputs, job.dense, classes, job.distance, subject.output, subject.activation)
        tally.add(scores, len(pixels))
    return tally


def answer_shard(job: Job) -> np.ndarray:
    """Return the (N, ...) float32 outputs of eager PyTorch on those of the images that can be read.

    Raises:
        AnswerError, ModelsError: as ``score_shard``.
    """
    pixels, _, _ = _read(job)
    return _outputs(job, pixels) if len(pixels) else np.zeros((0, subject_of(job.source).classes), np.float32)


@torch.inference_mode()
def _outputs(job: Job, pixels: np.ndarray) -> np.ndarray:
    subject = subject_of(job.source)
    if job.settings is None:
        remove(subject.model)
    else:
        apply(subject.model, job.settings)
    outputs = subject.model(torch.from_numpy(subject.preprocessing.normalise(pixels))).numpy()
    check_answers(outputs, [f"an image of {job.shard.folder}"] * len(outputs), job.source.recipe.name)
    return np.asarray(outputs)


class _Pixels:
    """The pixels that this process keeps, of one model's preprocessing."""

    source: Source | None = None
    of: ClassVar["OrderedDict[Shard, Read]"] = OrderedDict()


def forget_pixels() -> None:
    """Forget the pixels: files may have changed since."""
    _Pixels.source = None
    _Pixels.of.clear()


def _read(job: Job) -> Read:
    """Return (N, H, W, 3) uint8 pixels, (N,) classes where known, and what is wrong with the images left out."""
    preprocessing, kept = subject_of(job.source).preprocessing, _Pixels.of
    if _Pixels.source != job.source:
        forget_pixels()
        _Pixels.source = job.source
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


@dataclass
class Judge:
    """Judges settings by eager PyTorch on images, beside the dense model's answers, which are made once and kept.

    Attributes:
        source: the model.
        images: ``search`` is judged on.
        workers: what computes.
        place: a folder that keeps the answers, which is ours.
        question: what the answers depend on, as text; others are not used.
        distance: of the outputs.
        check: called before each shard; what it raises ends the judging.
    """

    source: Source
    images: Split
    workers: Workers
    place: Path
    question: str = ""
    distance: Distance = DIVERGENCE
    check: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._dense: dict[Shard, np.ndarray] = {}
        self.place.mkdir(parents=True, exist_ok=True)

    def judge(self, trials: Sequence[tuple[int, Settings]], start: int, stop: int) -> dict[int, Tally]:
        """Return the sums over the images from ``start`` to before ``stop`` for each of the settings, by its number.

        Raises:
            ImageError: none of the images can be read.
            AnswerError: an answer that is not finite.
        """
        shards = self.images.shards(start, stop)
        self._answer(shards)
        jobs = (
            Job(number, self.source, settings, shard, self._dense[shard], self.distance)
            for number, settings in trials
            for shard in shards
        )
        sums = {number: Tally() for number, _ in trials}
        for job, tally in self.workers.map(score_shard, self._checked(jobs)):
            sums[job.number].merge(tally)
        for tally in sums.values():
            if not tally.images:
                raise ImageError(f"none of the {stop - start} images can be read: {tally.unreadable_images[0]}")
        return sums

    def judge_all(self, settings: Settings) -> tuple[Loss, list[float]]:
        """Return the loss of settings on all images, and the distance on the images of each rung."""
        total, distances, begin = Tally(), [], 0
        for end in rungs(len(self.images.search)):
            total.merge(self.judge([(0, settings)], begin, end)[0])
            distances.append(loss_of(total).distance)
            begin = end
        return loss_of(total), distances

    def _checked(self, jobs: Iterable[Job]) -> Iterator[Job]:
        for job in jobs:
            self.check()
            yield job

    def _answer(self, shards: Iterable[Shard]) -> None:
        """Make the dense model's answers on images that have none, or read those that an earlier process kept."""
        paths = {shard: self.place / f"{self._name(shard)}.npy" for shard in shards}
        for shard, path in paths.items():
            if shard not in self._dense and (kept := _kept(path, len(shard.names))) is not None:
                self._dense[shard] = kept
        missing = [Job(-1, self.source, None, shard) for shard in paths if shard not in self._dense]
        for job, answers in self.workers.map(answer_shard, self._checked(missing)):
            self._dense[job.shard] = answers
            with atomic.replacing(paths[job.shard]) as temporary, temporary.open("wb") as file:
                np.save(file, answers, allow_pickle=False)

    def _name(self, shard: Shard) -> str:
        """Return a name for the answers to these images, and no others."""
        return hashlib.sha256(f"{self.question} {self.source.sha256} {shard}".encode()).hexdigest()[:32]


def _kept(path: Path, images: int) -> np.ndarray | None:
    try:
        answers: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return answers if answers.dtype == np.float32 and answers.ndim > 1 and len(answers) <= images else None


def loss_of(tally: Tally) -> Loss:
    """Return what sums of scores beside the dense model say."""
    return Loss.of(tally.accuracy())


def graph_losses(
    files: Sequence[Path],
    runnings: Sequence[Running],
    images: ImageSet,
    progress: Progress = quiet,
    *,
    workers: Workers | None = None,
    threads: int | None = None,
    resume: Path | None = None,
) -> list[Loss]:
    """Return what each graph loses beside the first one, the dense model's, whose own loss comes first.

    Args:
        files, runnings: two graphs or more, and how each runs.
        images: what they are run on; every image is read once.
        progress: told "measuring accuracy" and the share done.
        workers: what runs them (default: this process).
        threads: that read images; None is one for each CPU.
        resume: a folder that keeps how far each evaluation is.

    Raises:
        GTPRuntimeError: a file that cannot be loaded, images that cannot be read, an answer that is not finite.
    """
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeightsWarning)  # said by whoever made the files
        dense, *models = (
            stack.enter_context(load(path, running.backend, **running.options))
            for path, running in zip(files, runnings, strict=True)
        )
        given: dict[str, Any] = {"workers": threads}
        if resume is not None:
            given["resume"] = [resume / f"{_evaluation(model, dense, images)}.json" for model in models]
        if isinstance(workers, Fleet):
            given["scoring"] = fleet_scoring(workers)
        accuracies: list[Accuracy] = evaluate_each(models, dense, images, progress, **given)
    return [Loss.of_dense(accuracies[0]), *map(Loss.of, accuracies)]


def _evaluation(model: Model, dense: Model, images: ImageSet) -> str:
    """Return a name for what is kept of an evaluation: another file, option or folder has another."""
    parts = [model.entry.sha256, dense.entry.sha256, model.backend.name, str(model.backend.info), images.digest()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
