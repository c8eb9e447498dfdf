"""Jobs of a fleet's nodes: scoring shards of an evaluation, and timing files on a board.

Each node loads the files of an evaluation once. ``time_files`` and ``start_file`` are what ``Fleet.on_device`` calls;
they work as well in this process.
"""

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from gtp_runtime.accuracy import Scored
from gtp_runtime.errors import RandomWeightsWarning
from gtp_runtime.evaluation import Job, Scoring, score_images
from gtp_runtime.fleet.fleet import Fleet
from gtp_runtime.fleet.node import Parcel, pack, unpacked
from gtp_runtime.footprint import STARTS, Footprint, measure_footprint
from gtp_runtime.images.folders import ImageSet
from gtp_runtime.latency import MIN_RUNS, Latency, benchmark
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
    for _, shard in fleet.map_with(_scorer(job), shards):
        for scored in shard:
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


@dataclass(frozen=True)
class Timing:
    """Files to be timed in turn.

    Attributes:
        files: files of artifact directories; the dense baseline first.
        backend: as ``load`` takes it.
        options: for each of ``files``, as ``load`` takes them; none of them without.
        seconds, rounds: as ``benchmark`` takes them; the seconds of each loading.
        loads: how often the files are loaded anew and timed.
    """

    files: tuple[Path, ...]
    backend: str = "auto"
    options: tuple[Mapping[str, Any], ...] = ()
    seconds: float = 3.0
    rounds: int = MIN_RUNS
    loads: int = 1


def time_files(timing: Timing) -> list[Latency]:
    """Time files in this process; ``Latency.file`` is the name of each.

    Of several loads, each file's is the one with its median ratio to the first file, whose own is that with its median
    latency.

    Raises:
        BackendMissingError, EngineMismatchError, DeviceError: this machine cannot run one of them.
        InputError: files of different batch sizes, or options that the backend does not take.
    """
    loads = [_time(timing) for _ in range(timing.loads)]
    return [_median(results) for results in zip(*loads, strict=True)]


def _median(results: Sequence[Latency]) -> Latency:
    return sorted(results, key=lambda result: (result.ratio, result.p50_ms))[len(results) // 2]


def _time(timing: Timing) -> list[Latency]:
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeightsWarning)  # said by whoever made the files
        pairs = zip(timing.files, timing.options or [{}] * len(timing.files), strict=True)
        models = [stack.enter_context(load(file, timing.backend, **options)) for file, options in pairs]
        latencies = benchmark(models, timing.seconds, rounds=timing.rounds)
    return [replace(result, file=file.name) for result, file in zip(latencies, timing.files, strict=True)]


@dataclass(frozen=True)
class Start:
    """A file to be started in processes of its own: the one of ``files``; the rest is ``measure_footprint``'s."""

    files: tuple[Path, ...]
    backend: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    starts: int = STARTS


def start_file(start: Start) -> Footprint:
    """Return what a process takes that runs the file. Raises as ``measure_footprint`` does."""
    return measure_footprint(start.files[0], start.backend, starts=start.starts, **start.options)
