"""Evaluates on a fleet: each node loads the files once, and scores shards of the images."""

import warnings
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from gtp_runtime.accuracy import Scored
from gtp_runtime.errors import RandomWeightsWarning
from gtp_runtime.evaluation import Job, Scoring, score_images
from gtp_runtime.fleet.fleet import Fleet
from gtp_runtime.fleet.parcels import Parcel, pack, unpacked
from gtp_runtime.images.folders import ImageSet
from gtp_runtime.loading import load
from gtp_runtime.model import Model

CHUNKS = 8  # of a shard


def fleet_scoring(fleet: Fleet) -> Scoring:
    """Return what ``gtp_runtime.evaluate(scoring=)`` takes, so that a fleet's nodes score the images.

    Chunks are the same as in one process, and their sums are added in the same order: the result is the same, bit by
    bit, where a file answers the same on every node. The evaluation raises ``FleetError`` where no node is left.
    """
    return partial(_score, fleet)


def _score(fleet: Fleet, job: Job, indices: range) -> Generator[Scored, None, None]:
    size = CHUNKS * job.chunk
    shards = (range(start, min(start + size, indices.stop)) for start in range(indices.start, indices.stop, size))
    for _, found in fleet.map_with(_scorer(job), shards):
        for scored in found:
            yield replace(scored, unreadable=[(index, _said(job.images, why)) for index, why in scored.unreadable])


def _said(images: ImageSet, why: str) -> str:
    """Name an image by the path that was given."""
    return why.replace(str(images.folder.resolve()), str(images.folder))


@dataclass(frozen=True)
class _Sent:
    """A file that is sent, and how the node is to run it: as it is run here."""

    parcel: Parcel
    backend: str
    options: dict[str, Any]

    @staticmethod
    def of(model: Model) -> "_Sent":
        return _Sent(pack(model.path, model.manifest), model.backend.name, asdict(model.options))

    def load(self) -> Model:
        """Load it. Nothing of it is left on the disk, for a node's process is ended without notice."""
        with unpacked(self.parcel) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", RandomWeightsWarning)  # whoever sent it was warned
            return load(file, self.backend, **self.options)


@dataclass(frozen=True)
class _Scorer:
    """Makes a node's function: from the indices of a shard to the scores of its chunks.

    Attributes:
        files, dense: of the job, as they are sent.
        job: the rest of it.
    """

    files: list[_Sent]
    dense: _Sent | None
    job: Job

    def __call__(self) -> Callable[[range], list[Scored]]:
        with ExitStack() as stack:
            dense = None if self.dense is None else stack.enter_context(self.dense.load())
            files = [stack.enter_context(file.load()) for file in self.files]
            stack.pop_all()  # all are loaded: they stay open for the shards to come
        job = replace(self.job, files=files, dense=dense)
        return lambda shard: list(score_images(job, shard))


def _scorer(job: Job) -> _Scorer:
    images = replace(job.images, folder=job.images.folder.resolve())
    dense = None if job.dense is None else _Sent.of(job.dense)
    return _Scorer([_Sent.of(file) for file in job.files], dense, replace(job, files=[], dense=None, images=images))
