"""Scores images of a folder, those next to each other at once, in bounded memory."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gtp_runtime.accuracy import Scored, Scores, score
from gtp_runtime.errors import ImageError
from gtp_runtime.images.folders import ImageSet
from gtp_runtime.model import Model
from gtp_runtime.read_ahead import count_workers, read_ahead

Inputs = list[np.ndarray]  # one image, preprocessed for each file
Part = list[tuple[int, "Inputs | ImageError"]]
CHUNK = 16  # images that are scored at once, at least


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
    """

    files: list[Model]
    dense: Model | None
    images: ImageSet
    done: list[int]
    strict: bool = False
    workers: int | None = None

    @property
    def all_files(self) -> list[Model]:
        """The files, and the dense baseline last."""
        return [*self.files, *([] if self.dense is None else [self.dense])]

    @property
    def chunk(self) -> int:
        """Images that are scored at once: sums over them are the same wherever the chunks are scored."""
        batch = max(file.batch for file in self.all_files)
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
            return _preprocess(files, job.images.path(index))
        except ImageError as error:
            return error

    with closing(read_ahead(read, indices, count_workers(job.workers))) as found:
        for part in _chunks(found, job.chunk):
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
    names = [job.images.path(index) for index in indices]
    classes = None if job.images.classes is None else job.images.classes[indices]

    def logits(number: int) -> np.ndarray:
        pixels = np.stack([inputs[number] for _, inputs in readable])
        return job.all_files[number].logits(pixels, names)

    dense = None if job.dense is None else logits(-1)
    return [score(logits(number), dense, classes) if done < stop else {} for number, done in enumerate(job.done)]
