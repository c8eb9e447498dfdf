"""Latency beside the dense model, in turn in one process; and what a graph costs beside: size, memory, cold start."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gtp_exporters.measuring.candidate import Running
from gtp_exporters.measuring.result import Timing
from gtp_exporters.measuring.shards import Local, Workers
from gtp_runtime import Footprint
from gtp_runtime.errors import DeviceError
from gtp_runtime.fleet.jobs import Start, start_file, time_files
from gtp_runtime.fleet.jobs import Timing as InTurn
from gtp_runtime.footprint import file_bytes
from gtp_runtime.latency import MIN_RUNS

LOADS = 3  # loadings that the seconds are shared by; the one in the middle counts
STARTS = 1  # processes for each file
AGAIN = 2  # times that a timing which contradicts its MACs is taken again
MOST_SAVED = 1.5  # times the share of MACs saved: attention's softmax is no MAC, and caches help, but not more
SLACK = 0.05  # of the ratio
MOST_LOST = 0.5  # of the ratio, above that of the MACs
log = logging.getLogger(__name__)


def time_in_turn(
    files: Sequence[Path],
    runnings: Sequence[Running],
    seconds: float,
    loads: int = LOADS,
    workers: Workers | None = None,
    rounds: int = MIN_RUNS,
) -> list[Timing]:
    """Time graphs in turn in one process; each is beside the first one, the dense model's.

    Args:
        files, runnings: the graphs, and how each runs, all on the same backend.
        seconds: of timing, for all files together, in each loading.
        loads: how often files are loaded anew and timed; the one with the median ratio counts.
        workers: where latency is measured (default: in this process).
        rounds: runs of each in a loading, at least.

    Raises:
        BackendMissingError, DeviceError: the device cannot run one of them.
    """
    options = tuple(running.options for running in runnings)
    job = InTurn(tuple(files), runnings[0].backend, options, seconds, rounds=rounds, loads=loads)
    return [Timing.of(latency) for latency in (workers or Local()).on_device(time_files, job)]


def time_plausibly(
    files: Sequence[Path],
    runnings: Sequence[Running],
    macs_ratios: Sequence[float | None],
    seconds: float,
    workers: Workers | None = None,
    loads: int = LOADS,
    rounds: int = MIN_RUNS,
) -> list[Timing]:
    """Time as ``time_in_turn``, and what contradicts its MACs again; of several timings the middle one counts.

    Args:
        files, runnings, seconds, workers, loads, rounds: as there.
        macs_ratios: of each file, its MACs over the dense model's; None where they say nothing: in another precision.
    """
    every = [time_in_turn(files, runnings, seconds, loads, workers, rounds)]
    while len(every) <= AGAIN and any(map(contradicts, every[-1], macs_ratios)):
        log.info("timings that contradict their MACs are taken again: %s", [timing.ratio for timing in every[-1]])
        every.append(time_in_turn(files, runnings, seconds, loads, workers, rounds))
    return [middle(timings) for timings in zip(*every, strict=True)]


def contradicts(timing: Timing, macs_ratio: float | None) -> bool:
    """Whether a latency is far below or above what the MACs allow for."""
    if macs_ratio is None:
        return False
    saved, expected = 1 - timing.ratio, 1 - macs_ratio
    return saved > MOST_SAVED * expected + SLACK or saved < expected - MOST_LOST


def middle(timings: Sequence[Timing]) -> Timing:
    """Return the timing with the median ratio; of an even number, the slower of the two."""
    return sorted(timings, key=lambda timing: (timing.ratio, timing.p50_ms))[len(timings) // 2]


def share_of(timing: Timing, dense: Timing, macs_ratio: float) -> float | None:
    """Return the share of the saved MACs that becomes saved time; None where none are, or where noise is larger.

    Args:
        timing: the candidate's.
        dense: that of the dense model in the same precision, timed in the same runs.
        macs_ratio: the candidate's MACs over the dense model's.
    """
    saved = 1 - macs_ratio
    if saved <= 0 or timing.is_noisy or dense.is_noisy:
        return None
    return (1 - timing.ratio / dense.ratio) / saved


def footprint_of(path: Path, running: Running, workers: Workers | None = None) -> Footprint:
    """Return the size of a file, and what a process of its own takes to run it, where one can."""
    try:
        return (workers or Local()).on_device(start_file, Start((path,), running.backend, running.options, STARTS))
    except DeviceError as error:
        log.info("memory and cold start of %s on %s are not measured: %s", path, running.label, error)
        return Footprint(file_bytes(path))


def cached(timing: Timing) -> Timing:
    """Return a timing for another candidate with the same shapes."""
    return replace(timing, cached=True)
