"""How near candidates answer to the dense model, and how accurate they are.

Eager PyTorch answers for settings (``Judge``): on a growing part of the images, in shards that any process with the
images can do. Exported graphs answer for themselves (``graph_losses``), on a whole folder that is read once for all.
"""

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from gtp_exporters.measuring.candidate import Running
from gtp_exporters.measuring.graphs import Source, subject_of
from gtp_exporters.measuring.result import Loss
from gtp_exporters.measuring.shards import Shard, Split, Workers, rungs
from gtp_models.frame.patch import remove
from gtp_models.methods.apply import apply
from gtp_models.methods.settings import Settings
from gtp_runtime import ImageSet, Model, atomic, load
from gtp_runtime.accuracy import Accuracy, Tally
from gtp_runtime.errors import ImageError, RandomWeightsWarning
from gtp_runtime.evaluation import evaluate_each
from gtp_runtime.fleet import Fleet, fleet_scoring
from gtp_runtime.images.targets import Targets
from gtp_runtime.messages import Progress, quiet
from gtp_runtime.neighbours import MOST, Gallery
from gtp_runtime.prediction import check_answers
from gtp_runtime.question import Question, question_about, score
from gtp_runtime.reference import UNREADABLE, load_arrays

KEPT = 1 << 29  # bytes of pixels, and of the dense model's answers, that a process keeps


@dataclass(frozen=True)
class Read:
    """Images of a shard: (N, H, W, 3) uint8, their places in it, and what is wrong with the others."""

    pixels: np.ndarray
    places: np.ndarray
    problems: list[str]


@dataclass(frozen=True)
class Answers:
    """Outputs (N, ...) float32 by name of those images of a shard that can be read, and their places in it."""

    outputs: dict[str, np.ndarray]
    places: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        return sum(values.nbytes for values in self.outputs.values())


@dataclass(frozen=True)
class Job:
    """Settings on a shard, for a worker.

    Attributes:
        number: of the candidate, for whoever asked.
        source: the model.
        settings: how its tokens are reduced; None for the dense model.
        shard: the images.
        dense: the dense model's answers; None if not known.
        question: what is measured.
    """

    number: int
    source: Source
    settings: Settings | None
    shard: Shard
    dense: Answers | None = None
    question: Question = field(default_factory=Question)


def score_shard(job: Job) -> Tally:
    """Return the sums of the scores of eager PyTorch on the images, beside the dense model's.

    Raises:
        AnswerError: an answer that is not finite.
        ModelsError: the model cannot be built, or the settings do not fit it.
    """
    read, tally = _read(job), Tally()
    for problem in read.problems:
        tally.add_unreadable(problem)
    if len(read.pixels):
        dense = None if job.dense is None else job.dense.outputs
        names = [job.shard.names[place] for place in read.places]
        classes = None if job.shard.classes is None else np.array(job.shard.classes, np.int32)[read.places]
        tally.add(score(_outputs(job, read.pixels), dense, classes, job.question, names), len(read.pixels))
    return tally


def answer_shard(job: Job) -> Answers:
    """Return what eager PyTorch answers for those of the images that can be read.

    Raises:
        AnswerError, ModelsError: as ``score_shard``.
    """
    read = _read(job)
    return Answers(_outputs(job, read.pixels) if len(read.pixels) else {}, read.places)


@torch.inference_mode()
def _outputs(job: Job, pixels: np.ndarray) -> dict[str, np.ndarray]:
    subject = subject_of(job.source)
    if job.settings is None:
        remove(subject.model)
    else:
        apply(subject.model, job.settings, restore=subject.outputs.is_dense)
    tensors = subject.outputs.of(subject.model, torch.from_numpy(subject.preprocessing.normalise(pixels)))
    outputs = {name: tensor.numpy() for name, tensor in zip(subject.outputs.names, tensors, strict=True)}
    for values in outputs.values():
        check_answers(values, [f"an image of {job.shard.folder}"] * len(values), job.source.recipe.name)
    return outputs


class _Pixels:
    """The pixels that this process keeps, of one model's preprocessing."""

    source: Source | None = None
    of: ClassVar["OrderedDict[Shard, Read]"] = OrderedDict()


def forget_pixels() -> None:
    """Forget the pixels: files may have changed since."""
    _Pixels.source = None
    _Pixels.of.clear()


def _read(job: Job) -> Read:
    """Return the images that can be read; the last ones are kept."""
    preprocessing, kept = subject_of(job.source).preprocessing, _Pixels.of
    if _Pixels.source != job.source:
        forget_pixels()
        _Pixels.source = job.source
    if job.shard not in kept:
        kept[job.shard] = _decoded(job.shard, preprocessing)
    kept.move_to_end(job.shard)
    while len(kept) > 1 and sum(entry.pixels.nbytes for entry in kept.values()) > KEPT:
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
    return Read(stacked, np.array(readable, np.int64), problems)


@dataclass
class Judge:
    """Judges settings by eager PyTorch on images, beside the dense model's answers, which are made once and kept.

    Attributes:
        source: the model.
        images: ``search`` is judged on.
        workers: what computes.
        place: a folder that keeps the answers, which is ours.
        question: what the answers depend on, as text; others are not used.
        asked: what is measured; features get their reference set here, of the images of ``search``.
        check: called before each shard; what it raises ends the judging.
    """

    source: Source
    images: Split
    workers: Workers
    place: Path
    question: str = ""
    asked: Question = field(default_factory=Question)
    check: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._dense: dict[Shard, Answers] = {}
        self.place.mkdir(parents=True, exist_ok=True)

    def judge(self, trials: Sequence[tuple[int, Settings]], start: int, stop: int) -> dict[int, Tally]:
        """Return the sums over the images from ``start`` to before ``stop`` for each of the settings, by its number.

        Raises:
            ImageError: none of the images can be read.
            AnswerError: an answer that is not finite.
        """
        shards = self.images.shards(start, stop)
        self._answer(shards)
        self._look_up()
        jobs = (
            Job(number, self.source, settings, shard, self._answers(shard), self.asked)
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
            distances.append(self.loss_of(total).distance)
            begin = end
        return self.loss_of(total), distances

    def loss_of(self, tally: Tally) -> Loss:
        """Return what sums of scores beside the dense model say."""
        return Loss.of(tally.accuracy(self.asked.metric, self.asked.quality))

    def _checked(self, jobs: Iterable[Job]) -> Iterator[Job]:
        for job in jobs:
            self.check()
            yield job

    def _answer(self, shards: Iterable[Shard]) -> None:
        """Make the dense model's answers on images that have none, or read those that an earlier process kept."""
        jobs = (Job(-1, self.source, None, shard) for shard in shards if self._kept(shard) is None)
        for job, answers in self.workers.map(answer_shard, self._checked(jobs)):
            with atomic.replacing(self._path(job.shard)) as temporary, temporary.open("wb") as file:
                np.savez(file, places=answers.places, **answers.outputs)  # type: ignore[arg-type]
            self._keep(job.shard, answers)

    def _answers(self, shard: Shard) -> Answers:
        """Return the dense model's answers, which were made."""
        answers = self._kept(shard)
        assert answers is not None
        return answers

    def _keep(self, shard: Shard, answers: Answers) -> None:
        """Keep answers in memory, as far as there is room: they are on the disk as well."""
        if sum(kept.nbytes for kept in self._dense.values()) + answers.nbytes <= KEPT:
            self._dense[shard] = answers

    def _kept(self, shard: Shard) -> Answers | None:
        if shard in self._dense:
            return self._dense[shard]
        answers = _read_answers(self._path(shard), len(shard.names))
        if answers is not None:
            self._keep(shard, answers)
        return answers

    def _look_up(self) -> None:
        """Make the reference set of features, where there is none yet."""
        if not self.asked.needs_gallery:
            return
        shards = self.images.shards(0, min(MOST, len(self.images.search)))
        self._answer(shards)
        pairs = [(shard, answers) for shard in shards if len((answers := self._answers(shard)).places)]
        if not pairs:
            return
        names = [shard.names[place] for shard, answers in pairs for place in answers.places]
        classes = [shard.classes[place] for shard, answers in pairs for place in answers.places if shard.classes]
        features = np.concatenate([next(iter(answers.outputs.values())) for _, answers in pairs])
        self.asked = self.asked.beside(Gallery.of(features, names, np.array(classes, np.int32) if classes else None))

    def _path(self, shard: Shard) -> Path:
        return self.place / f"{self._name(shard)}.npz"

    def _name(self, shard: Shard) -> str:
        """Return a name for the answers to these images, and no others."""
        return hashlib.sha256(f"{self.question} {self.source.sha256} {shard}".encode()).hexdigest()[:32]


def _read_answers(path: Path, images: int) -> Answers | None:
    try:
        arrays = load_arrays(path)
        places = arrays.pop("places")
    except UNREADABLE:
        return None
    return Answers(arrays, places) if all(len(values) == len(places) <= images for values in arrays.values()) else None


def graph_losses(
    files: Sequence[Path],
    runnings: Sequence[Running],
    images: ImageSet,
    progress: Progress = quiet,
    *,
    workers: Workers | None = None,
    threads: int | None = None,
    resume: Path | None = None,
    question: Question | None = None,
    targets: Targets | None = None,
) -> list[Loss]:
    """Return what each graph loses beside the first one, the dense model's, whose own loss comes first.

    Args:
        files, runnings: two graphs or more, and how each runs.
        images: what they are run on; every image is read once.
        progress: told "measuring accuracy" and the share done.
        workers: what runs them (default: this process).
        threads: that read images; None is one for each CPU.
        resume: a folder that keeps how far each evaluation is.
        question: what is measured (default: by the kind of their outputs).
        targets: the truth of each pixel, where the question needs it.

    Raises:
        GTPRuntimeError: a file that cannot be loaded, images that cannot be read, an answer that is not finite.
    """
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeightsWarning)  # said by whoever made the files
        dense, *models = (
            stack.enter_context(load(path, running.backend, **running.options))
            for path, running in zip(files, runnings, strict=True)
        )
        question = question or question_about(dense.manifest)
        given: dict[str, Any] = {"workers": threads, "question": question, "targets": targets}
        if resume is not None:
            given["resume"] = [resume / f"{_evaluation(model, dense, images, question)}.json" for model in models]
        if isinstance(workers, Fleet):
            given["scoring"] = fleet_scoring(workers)
        accuracies: list[Accuracy] = evaluate_each(models, dense, images, progress, **given)
    return [Loss.of_dense(accuracies[0]), *map(Loss.of, accuracies)]


def _evaluation(model: Model, dense: Model, images: ImageSet, question: Question) -> str:
    """Return a name for what is kept of an evaluation: another file, option or folder has another."""
    parts = [model.entry.sha256, dense.entry.sha256, model.backend.name, str(model.backend.info), images.digest()]
    parts += question.key
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
