"""Predictions: the best classes of images, and images read in threads, a few ahead of what is done with them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from typing import TypeVar

import numpy as np

from gtp_runtime.accuracy import probabilities
from gtp_runtime.cpus import usable_cpus
from gtp_runtime.errors import AnswerError, ImageError, InputError, RandomWeightsError
from gtp_runtime.images.decoding import ImageLike
from gtp_runtime.manifest import Manifest

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2  # results for each thread that wait to be taken


@dataclass(frozen=True)
class Prediction:
    """A predicted class; ``label`` is its name, or its index if names are unknown."""

    label: str
    index: int
    probability: float


def check_topk(topk: int) -> None:
    """Raise ``InputError`` unless ``topk`` is a whole number of 1 or more."""
    if isinstance(topk, bool) or not isinstance(topk, int | np.integer) or topk < 1:
        raise InputError(f"topk={topk!r}: give a whole number, 1 or more")


def check_weights(manifest: Manifest) -> None:
    """Raise ``RandomWeightsError`` if the weights are random."""
    if manifest.weights.source == "random":
        raise RandomWeightsError(
            f"{manifest.model.name} has random weights, so its predictions are meaningless: export it with "
            "--weights FILE, or allow them (allow_random=True, --allow-random)"
        )


def check_answers(answers: np.ndarray, images: Sequence[object], file: str) -> None:
    """Check (N, ...) answers for N images.

    Raises:
        AnswerError: some are not finite; names the first such image.
    """
    broken = ~np.isfinite(answers.reshape(len(answers), -1)).all(1)
    if broken.any():
        first = images[int(broken.argmax())]
        name = first if isinstance(first, str | PathLike) else type(first).__name__
        raise AnswerError(
            f"{file} has non-finite outputs for {int(broken.sum())} of {len(answers)} images, first {name}: its "
            "weights contain NaN, or its precision overflows; run gtp-export validate, or export it again"
        )


def best_classes(
    logits: np.ndarray, labels: Sequence[str] | None, topk: int, activation: str = "softmax"
) -> list[list[Prediction]]:
    """Return the ``topk`` best classes of each image, best first, from finite (N, classes) logits.

    With the ``activation`` "sigmoid" each class has a probability by itself. One logit is two classes: 0 and 1.
    """
    return [_best(row, labels, topk) for row in probabilities(logits, activation)]


def _best(shares: np.ndarray, labels: Sequence[str] | None, topk: int) -> list[Prediction]:
    order = np.argsort(-shares, kind="stable")[:topk]
    return [Prediction(labels[index] if labels else str(index), int(index), float(shares[index])) for index in order]


Answer = list[Prediction] | ImageError


def predict_each(
    images: Iterable[ImageLike],
    read: Callable[[ImageLike], np.ndarray],
    answer: Callable[[np.ndarray, list[ImageLike]], list[R]],
    batch: int,
    workers: int,
) -> Iterator[tuple[ImageLike, R | ImageError]]:
    """Answer for any number of images: one that cannot be read does not lose the others.

    Args:
        images: taken one by one, a few ahead of the answers.
        read: returns the input of an image, or raises ``ImageError``; called in threads.
        answer: returns one answer for each of the inputs (N, ...) of images, which it is given too.
        batch: how many are answered at once.
        workers: threads that read.
    """

    def readable(image: ImageLike) -> np.ndarray | ImageError:
        try:
            return read(image)
        except ImageError as error:
            return error

    with closing(read_ahead(readable, images, workers)) as entries:
        while part := list(islice(entries, batch)):
            pixels = [entry for _, entry in part if not isinstance(entry, ImageError)]
            names = [image for image, entry in part if not isinstance(entry, ImageError)]
            answers = iter(answer(np.stack(pixels), names) if pixels else [])
            yield from ((image, entry if isinstance(entry, ImageError) else next(answers)) for image, entry in part)


def read_ahead(function: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[tuple[T, R], None, None]:
    """Yield each item with its result, in order; an exception comes in the place of its item.

    Args:
        function: what is called; it must be safe to call from several threads.
        items: taken one by one, at most ``AHEAD`` for each thread before their results are.
        workers: threads; see ``count_workers``.
    """
    with ThreadPoolExecutor(workers, "gtp-read") as pool:
        waiting: deque[tuple[T, Future[R]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > AHEAD * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def count_workers(workers: int | None) -> int:
    """Return how many threads to read with; None is one for each CPU that this process may use.

    Raises:
        InputError: no whole number of 1 or more.
    """
    if workers is None:
        return usable_cpus()
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise InputError(f"workers={workers!r}: give a whole number, 1 or more")
    return workers
