"""Times callables in interleaved runs in one process, so that noise of the machine affects all of them."""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from gtp_runtime.errors import InputError
from gtp_runtime.progress import Progress, quiet

MIN_RUNS = 10
WARMUP_SECONDS = 0.2
WARMUP_RUNS = 3


def in_turn(
    runs: Sequence[Callable[[], object]],
    seconds: float,
    progress: Progress = quiet,
    rounds: int = MIN_RUNS,
) -> list[list[float]]:
    """Time callables in interleaved runs, about ``seconds`` in total after a warm-up; return the seconds of each run.

    Args:
        runs: the callables.
        seconds: timing of all together, 0 or more.
        progress: called with "benchmarking" and the share done.
        rounds: minimum number of runs of each, even if ``seconds`` is exceeded; 1 or more.

    Raises:
        InputError: nothing to time, or an invalid value of ``seconds`` or ``rounds``.
    """
    check_duration(seconds, rounds)
    if not runs:
        raise InputError("nothing to time: give at least one file")
    for run in runs:
        _warm_up(run)
    times: list[list[float]] = [[] for _ in runs]
    start = time.perf_counter()
    while len(times[0]) < rounds or time.perf_counter() - start < seconds:
        for run, taken in zip(runs, times, strict=True):
            before = time.perf_counter()
            run()
            taken.append(time.perf_counter() - before)
        progress("benchmarking", min(1.0, (time.perf_counter() - start) / seconds) if seconds else 1.0)
    return times


def check_duration(seconds: float, rounds: int = MIN_RUNS) -> None:
    """Raise ``InputError`` unless ``seconds`` is finite and 0 or more, and ``rounds`` a whole number of 1 or more."""
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not math.isfinite(seconds) or seconds < 0:
        raise InputError(f"seconds={seconds!r}: give a finite number, 0 or more")
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
        raise InputError(f"rounds={rounds!r}: give a whole number, 1 or more")


def _warm_up(run: Callable[[], object]) -> None:
    start, done = time.perf_counter(), 0
    while done < WARMUP_RUNS or time.perf_counter() - start < WARMUP_SECONDS:
        run()
        done += 1


def median_stages(run: Callable[[], dict[str, float]], runs: int = MIN_RUNS) -> dict[str, float]:
    """Run a few times and return the median of each stage."""
    taken = [run() for _ in range(runs)]
    return {name: float(np.median([stages[name] for stages in taken])) for name in taken[0]}
