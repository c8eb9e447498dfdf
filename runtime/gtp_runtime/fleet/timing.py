"""Measures latency, memory and cold start, as ``Fleet.on_device`` calls it on a board."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gtp_runtime.errors import RandomWeightsWarning
from gtp_runtime.footprint import STARTS, Footprint, measure_footprint
from gtp_runtime.latency import MIN_RUNS, Latency, benchmark
from gtp_runtime.loading import load


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
        found = benchmark(models, timing.seconds, rounds=timing.rounds)
    return [replace(result, file=file.name) for result, file in zip(found, timing.files, strict=True)]


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
