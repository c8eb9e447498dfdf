"""Evaluation: what a model answers on a folder of images of any size, beside the dense baseline.

Images are read in threads and scored a chunk at a time, in bounded memory. A checkpoint keeps how far the evaluation
is, so that one that was killed is resumed: JSON of a few kilobytes, however many images there are, which is replaced
whole. It holds sums over the images done so far, and a key that says what was evaluated on what. Of images, the key has
names, sizes and times, not their pixels.
"""

import json
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from gtp_runtime import atomic
from gtp_runtime.accuracy import Accuracy, Scored, Scores, Tally
from gtp_runtime.errors import ImageError, InputError
from gtp_runtime.images.folders import ImageSet
from gtp_runtime.images.targets import Targets
from gtp_runtime.messages import Progress, quiet
from gtp_runtime.metrics import Own
from gtp_runtime.model import Model
from gtp_runtime.neighbours import MOST, Gallery
from gtp_runtime.opening import read_regular
from gtp_runtime.prediction import count_workers, read_ahead
from gtp_runtime.question import Question, ask, check_dense, images_for, question_about, score

Inputs = list[np.ndarray]  # one image, preprocessed for each file; then its truth, where that is of each pixel
Part = list[tuple[int, "Inputs | ImageError"]]
CHUNK = 16  # images that are scored at once, at least
FORMAT = "gtp-export evaluation 1"
LARGEST = 1 << 20  # bytes of a checkpoint
SECONDS = 10.0  # between two writings
ANSWERED_BY = ("version", "provider", "provider_options", "device", "compute")  # what answers depend on


@dataclass(frozen=True)
class Job:
    """An evaluation.

    Attributes:
        files: the files that are evaluated.
        dense: the dense baseline of all; None without one.
        images: what they are evaluated on.
        done: for each of ``files``, how many images need not be scored again.
        strict: the first image that cannot be read is an error.
        workers: threads that read images; None is one for each CPU.
        question: what is measured.
        targets: masks or depths of the images; None without.
    """

    files: list[Model]
    dense: Model | None
    images: ImageSet
    done: list[int]
    strict: bool = False
    workers: int | None = None
    question: Question = field(default_factory=Question)
    targets: Targets | None = None

    @property
    def all_files(self) -> list[Model]:
        """The files, and the dense baseline last."""
        return [*self.files, *([] if self.dense is None else [self.dense])]

    @property
    def chunk(self) -> int:
        """Images that are scored at once: sums over them are the same wherever the chunks are scored."""
        batch = max(file.batches.max for file in self.all_files)
        return -(-CHUNK // batch) * batch


class Scoring(Protocol):
    """Scores the images of a job that have these indices; the parts come in order."""

    def __call__(self, job: Job, indices: range) -> Generator[Scored, None, None]:
        """Score them."""
        ...


def score_images(job: Job, indices: range) -> Generator[Scored, None, None]:
    """Score images in this process.

    Raises:
        ImageError: with ``strict``, one image that cannot be read.
        AnswerError: an answer that is not finite.
    """

    files = job.all_files

    def read(index: int) -> Inputs | ImageError:
        try:
            inputs = _preprocess(files, job.images.path(index))
            if job.targets is not None:
                inputs.append(job.targets.read(job.images.name(index), files[0].manifest.preprocessing))
            return inputs
        except ImageError as error:
            return error

    with closing(read_ahead(read, indices, count_workers(job.workers))) as preprocessed:
        for part in _chunks(preprocessed, job.chunk):
            yield _score(job, part)


def _preprocess(files: list[Model], path: Any) -> Inputs:
    """Preprocess an image once for all files that take it alike."""
    first = files[0].preprocess(path)
    alike = [_takes(file) == _takes(files[0]) for file in files]
    return [first if same else file.preprocess(path) for file, same in zip(files, alike, strict=True)]


def _takes(file: Model) -> Any:
    return file.manifest.preprocessing, file.entry.inputs[0].dtype


def _chunks(found: Iterable[tuple[int, "Inputs | ImageError"]], size: int) -> Iterator[Part]:
    part: Part = []
    for entry in found:
        part.append(entry)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _score(job: Job, part: Part) -> Scored:
    readable: list[tuple[int, Inputs]] = []
    unreadable: list[tuple[int, str]] = []
    for index, entry in part:
        if not isinstance(entry, ImageError):
            readable.append((index, entry))
        elif job.strict:
            raise entry
        else:
            unreadable.append((index, str(entry)))
    stop = part[-1][0] + 1
    scores = _scores(job, readable, stop) if readable else [{}] * len(job.files)
    return Scored(stop, np.array([index for index, _ in readable], np.int64), scores, unreadable)


def _scores(job: Job, readable: list[tuple[int, Inputs]], stop: int) -> list[Scores]:
    """Score images for each file; nothing for one that has them already."""
    indices = [index for index, _ in readable]
    paths, names = [job.images.path(index) for index in indices], [job.images.names[index] for index in indices]
    truth = None if job.images.classes is None else job.images.classes[indices]
    if job.targets is not None:
        truth = np.stack([inputs[-1] for _, inputs in readable])

    def answers(number: int) -> dict[str, np.ndarray]:
        pixels = np.stack([inputs[number] for _, inputs in readable])
        return job.all_files[number].answers(pixels, paths)

    dense = None if job.dense is None else answers(len(job.files))
    return [
        score(answers(number), dense, truth, job.question, names) if done < stop else {}
        for number, done in enumerate(job.done)
    ]


class Checkpoint:
    """The state of an evaluation, in a file where one is given.

    Args:
        path: the file; None keeps nothing. A missing file is a new evaluation, any other must be of this one.
        key: what tells this evaluation from others, as plain values.

    Attributes:
        done: images that need not be read again.
        tally: the sums over them.

    Raises:
        InputError: the file is of another evaluation, is none of ours, or cannot be read.
    """

    def __init__(self, path: str | PathLike[str] | None, key: dict[str, Any]) -> None:
        self.path, self.key = None if path is None else Path(path), key
        self.done, self.tally = 0, Tally()
        if self.path is not None and self.path.exists():
            self._read(self.path)
        self._written = time.monotonic()

    def add(self, scored: Scored, number: int = 0) -> None:
        """Add the scores that the file of this number has on images that are not done; writes from time to time.

        Raises:
            InputError: the file cannot be written.
        """
        for index, why in scored.unreadable:
            if index >= self.done:
                self.tally.add_unreadable(why)
        new = scored.indices >= self.done
        if new.any():
            scores = {name: values[new] for name, values in scored.scores[number].items()}
            self.tally.add(scores, int(new.sum()))
        self.done = max(self.done, scored.stop)
        if time.monotonic() - self._written >= SECONDS:
            self.write()

    def write(self) -> None:
        """Write the file.

        Raises:
            InputError: it cannot be written.
        """
        if self.path is None:
            return
        content = {"format": FORMAT, "key": self.key, "done": self.done, "tally": asdict(self.tally)}
        try:
            atomic.write_bytes(self.path, json.dumps(content, indent=1).encode() + b"\n")
        except OSError as error:
            raise InputError(
                f"cannot write {self.path}, where the evaluation is kept: {error.strerror or error}; give another file "
                "with --resume (resume=)"
            ) from error
        self._written = time.monotonic()

    def _read(self, path: Path) -> None:
        try:
            values = json.loads(read_regular(path, LARGEST))
            ours = values["format"] == FORMAT
            done, tally, key = msgspec.convert(
                [values["done"], values["tally"], values["key"]], tuple[int, Tally, dict[str, Any]]
            )
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; give another file with --resume") from error
        except (ValueError, LookupError, TypeError, RecursionError, msgspec.ValidationError):
            ours = False
        if not ours:
            raise InputError(f"{path} keeps no evaluation of gtp-export: give another file with --resume (resume=)")
        other = [name for name in {**key, **self.key} if key.get(name) != self.key.get(name)]
        if other:
            raise InputError(
                f"{path} keeps another evaluation ({', '.join(other)} differ): give another file with --resume "
                "(resume=), or remove it"
            )
        self.done, self.tally = done, tally


def evaluate(
    model: Model,
    dense: Model | None,
    data: str | PathLike[str] | ImageSet,
    progress: Progress = quiet,
    *,
    class_order: str | None = None,
    labels: str | PathLike[str] | None = None,
    metric: Own | None = None,
    classes_from: str | PathLike[str] | None = None,
    masks: str | PathLike[str] | None = None,
    depths: str | PathLike[str] | None = None,
    strict: bool = False,
    workers: int | None = None,
    resume: str | PathLike[str] | None = None,
    scoring: Scoring = score_images,
) -> Accuracy:
    """What a file answers on a folder of images of any size, beside the dense baseline.

    Images are read and preprocessed in threads, once for both files. Those that cannot be read are counted and named.

    Args:
        model: the file.
        dense: its dense baseline; None where there is none.
        data: a folder, or what ``find_image_set`` made of it. Its sub-folders are the classes (``class_folders``);
            images in the folder itself have no class.
        progress: told "measuring accuracy" and the share done.
        class_order: "timm" or "torchvision": how class folders are sorted (``find_image_set``); default: the
            manifest's, else timm's.
        labels: a file that says the class of each image (``gtp_runtime.images.labels``), in place of sub-folders.
        metric: what the distance is of (``gtp_runtime.metrics.as_metric``; default: by the kind of output). It is
            called with the outputs of 16 images or a few more.
        classes_from: an .npz file of text embeddings, which make classes of features (``prompts.read_prompts``).
        masks, depths: a folder with the truth of each pixel (``images.targets``), for outputs of a module: mIoU of the
            argmax, or AbsRel.
        strict: the first image that cannot be read is an error.
        workers: threads that read images; None is one for each CPU.
        resume: a file that keeps how far the evaluation is. If it is there, the evaluation goes on from it.
        scoring: what scores the images: this process, or a fleet's nodes (``gtp_runtime.fleet``).

    Raises:
        ImageError: no images, none that can be read, sub-folders or labels that do not fit; with ``strict``, one image
            that cannot be read.
        InputError: a folder that is no path, options that exclude each other or do not fit the model's outputs, a
            ``resume`` of another evaluation.
        AnswerError: an answer that is not finite.
    """
    asked, targets = ask(model.manifest, metric=metric, classes_from=classes_from, masks=masks, depths=depths)
    check_dense(dense is not None or model.entry.role == "dense", asked, metric)
    images = data if isinstance(data, ImageSet) else images_for(data, model.manifest, asked, labels, class_order)
    kept = None if resume is None else [resume]
    reading: Any = {"strict": strict, "workers": workers, "scoring": scoring, "question": asked, "targets": targets}
    return evaluate_each([model], dense, images, progress, resume=kept, **reading)[0]


def evaluate_each(
    models: Sequence[Model],
    dense: Model | None,
    images: ImageSet,
    progress: Progress = quiet,
    *,
    strict: bool = False,
    workers: int | None = None,
    resume: Sequence[str | PathLike[str]] | None = None,
    scoring: Scoring = score_images,
    question: Question | None = None,
    targets: Targets | None = None,
) -> list[Accuracy]:
    """Accuracy of several files, each beside the same dense baseline: as ``evaluate``, reading every image once.

    Args:
        models: the files, one or more.
        dense: the dense baseline of all; it runs once for each image, and once more for those of a reference set.
        images: what ``images_for`` found.
        progress, strict, workers, scoring: as for ``evaluate``.
        resume: for each of ``models`` a file of its own, as for ``evaluate``.
        question: what is measured (default: by the outputs of the first file).
        targets: masks or depths.

    Raises:
        as ``evaluate``.
    """
    count_workers(workers)  # refused before the work
    question = question or question_about(models[0].manifest)
    if targets is not None:
        targets.check(images)
    places = [None] * len(models) if resume is None else list(resume)
    stamp = "" if resume is None else images.stamp() + ("" if targets is None else targets.stamp(images))
    keys = [_key(model, dense, stamp, question) for model in models]
    states = [Checkpoint(place, key) for place, key in zip(places, keys, strict=True)]
    for state in states:
        state.write()  # a place that cannot be written is said before the work
    done = [state.done for state in states]
    if question.needs_gallery and min(done) < len(images):
        question = question.beside(make_gallery(dense or models[0], images, strict, workers, progress))
    job = Job(list(models), dense, images, done, strict, workers, question, targets)
    try:
        _run(job, states, scoring, progress)
    finally:
        for state in states:
            state.write()
    tally = states[0].tally
    if not tally.images:
        raise ImageError(f"none of the {len(images)} images can be read: {tally.unreadable_images[0]}")
    said = (question.metric, question.quality, images.class_order, images.class_folders)
    return [state.tally.accuracy(*said) for state in states]


def make_gallery(
    model: Model, images: ImageSet, strict: bool, workers: int | None, progress: Progress = quiet
) -> Gallery:
    """Return the reference set: the dense model's features of at most ``MOST`` images, spread over the folder.

    Raises:
        ImageError: no image that can be read; with ``strict`` one that cannot.
        AnswerError: an answer that is not finite.
    """
    part = images.spread(MOST)
    rows, features, problem = list[int](), list[np.ndarray](), ""
    answers = model.features_each(map(part.path, range(len(part))), allow_random=True, workers=workers)
    for index, (_, outputs) in enumerate(answers):
        if isinstance(outputs, ImageError):
            if strict:
                raise outputs
            problem = problem or str(outputs)
            continue
        rows.append(index)
        features.append(next(iter(outputs.values())))
        progress("making the reference set", (index + 1) / len(part))
    if not rows:
        raise ImageError(f"none of the {len(part)} images can be read: {problem}")
    known = part.part(np.array(rows))
    return Gallery.of(np.stack(features), [bytes(name) for name in known.names], known.classes)


def _run(job: Job, states: Sequence[Checkpoint], scoring: Scoring, progress: Progress) -> None:
    with closing(scoring(job, range(min(job.done), len(job.images)))) as scores:
        for scored in scores:
            for number, state in enumerate(states):
                state.add(scored, number)
            progress("measuring accuracy", scored.stop / len(job.images))


def _key(model: Model, dense: Model | None, images: str, question: Question) -> dict[str, Any]:
    """What the sums of an evaluation depend on; ``images`` stands for them."""
    files = {"model": model, **({} if dense is None else {"dense": dense})}
    answers = {
        name: [
            file.entry.sha256,
            file.backend.name,
            *(str(file.backend.info.get(key)) for key in ANSWERED_BY),
        ]
        for name, file in files.items()
    }
    preprocessing = {f"preprocessing of {name}": asdict(file.manifest.preprocessing) for name, file in files.items()}
    return {**answers, **preprocessing, "images": images, "measured": question.key}
