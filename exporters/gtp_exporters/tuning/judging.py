"""Judges settings on the images of a search, a rung at a time, with answers of the dense model that are made once."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from gtp_exporters.tuning.results import Loss
from gtp_exporters.tuning.scoring import Job, ModelSource, answer_shard, score_shard
from gtp_exporters.tuning.shards import Shard, Split
from gtp_exporters.tuning.workers import Workers
from gtp_models.methods.settings import Settings
from gtp_runtime import atomic
from gtp_runtime.accuracy import Tally
from gtp_runtime.errors import ImageError


class Judge:
    """Judges settings on the images that a search sees.

    Args:
        source: the model.
        images: what the search sees.
        workers: what computes.
        place: a folder that keeps the dense model's answers, which is ours.
        classes: of the model.
        question: what the answers depend on, as text; others are not used.
    """

    def __init__(
        self, source: ModelSource, images: Split, workers: Workers, place: Path, classes: int, question: str = ""
    ) -> None:
        self.source, self.images, self.workers, self.place, self.classes = source, images, workers, place, classes
        self._question = question
        self._dense: dict[Shard, np.ndarray] = {}
        place.mkdir(exist_ok=True)

    def judge(self, trials: Sequence[tuple[int, Settings]], start: int, stop: int) -> dict[int, Tally]:
        """Return the sums over the images from ``start`` to before ``stop`` for each trial, by its number.

        Raises:
            ImageError: none of the images can be read.
            AnswerError: an answer that is not finite.
        """
        shards = self.images.shards(start, stop)
        self._answer(shards)
        jobs = (
            Job(number, self.source, settings, shard, self._dense[shard])
            for number, settings in trials
            for shard in shards
        )
        sums = {number: Tally() for number, _ in trials}
        for job, tally in self.workers.map(score_shard, jobs):
            sums[job.trial].merge(tally)
        for tally in sums.values():
            if not tally.images:
                raise ImageError(f"none of the {stop - start} images can be read: {tally.unreadable_images[0]}")
        return sums

    def _answer(self, shards: Iterable[Shard]) -> None:
        """Make the dense model's answers on images that have none, or read those that an earlier process kept."""
        numbered = {shard: self.place / f"{self._name(shard)}.npy" for shard in shards}
        for shard, path in numbered.items():
            if shard not in self._dense and (kept := self._kept(path, len(shard.names))) is not None:
                self._dense[shard] = kept
        missing = [Job(-1, self.source, None, shard) for shard in numbered if shard not in self._dense]
        for job, answers in self.workers.map(answer_shard, missing):
            self._dense[job.shard] = answers
            with atomic.replacing(numbered[job.shard]) as temporary, temporary.open("wb") as file:
                np.save(file, answers, allow_pickle=False)

    def _name(self, shard: Shard) -> str:
        """Return a name for the answers to these images in this search, and no others."""
        return hashlib.sha256(f"{self._question} {self.source.sha256} {shard}".encode()).hexdigest()[:32]

    def _kept(self, path: Path, images: int) -> np.ndarray | None:
        try:
            found = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        fits = found.dtype == np.float32 and found.ndim == 2 and len(found) <= images and found.shape[1] == self.classes
        return found if fits else None


def loss_of(tally: Tally) -> Loss:
    """Return what a tally says of settings beside the dense model."""
    return Loss.of(tally.accuracy())
