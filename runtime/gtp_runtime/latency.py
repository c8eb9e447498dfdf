"""Latency: several files taken in turn in one process, so that a noisy machine is noisy for all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

MIN_RUNS = 10
WARMUP_SECONDS = 0.2
WARMUP_RUNS = 3


@dataclass(frozen=True)
class Latency:
    """Times of one file, in milliseconds a run.

    Attributes:
        file: its name.
        batch: images a run.
        runs: how many were timed.
        p50_ms, p90_ms, p95_ms, p99_ms, mean_ms: percentiles and mean.
        cv: standard deviation over mean.
        throughput: images a second, by the mean.
        macs_ratio: its MACs over the first file's; None where unknown.
        ratio: its p50 over the first file's.
        share: of the MACs saved against the first file, the share that its latency realises; None where
            none are saved.
        price: its p50 over that of the free drop (``--method drop``) in the same run; None without one.
        stages: medians of an engine's parts in milliseconds, by trtexec's definitions: "h2d", "compute", "d2h",
            "enqueue"; None for other files.
    """

    file: str
    batch: int
    runs: int
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    cv: float
    throughput: float
    macs_ratio: float | None = None
    ratio: float = 1.0
    share: float | None = None
    price: float | None = None
    stages: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def in_turn(
    runs: Sequence[Callable[[], object]],
    seconds: float,
    progress: Callable[[float], None] = lambda share: None,
    rounds: int = MIN_RUNS,
) -> list[list[float]]:
    """Time each callable in turn for about ``seconds`` in all after a warm-up; seconds a run, by callable.

    Args:
        runs: what to time.
        seconds: together.
        progress: told the share done, 0..1.
        rounds: run at least, however long they take.
    """
    for run in runs:
        _warm_up(run)
    times: list[list[float]] = [[] for _ in runs]
    start = time.perf_counter()
    while len(times[0]) < rounds or time.perf_counter() - start < seconds:
        for run, taken in zip(runs, times, strict=True):
            before = time.perf_counter()
            run()
            taken.append(time.perf_counter() - before)
        progress(min(1.0, (time.perf_counter() - start) / seconds) if seconds else 1.0)
    return times


def _warm_up(run: Callable[[], object]) -> None:
    start, done = time.perf_counter(), 0
    while done < WARMUP_RUNS or time.perf_counter() - start < WARMUP_SECONDS:
        run()
        done += 1


def summarise(file: str, batch: int, seconds: Sequence[float]) -> Latency:
    """Turn times into percentiles."""
    times = np.asarray(seconds) * 1e3
    p50, p90, p95, p99 = (float(value) for value in np.percentile(times, [50, 90, 95, 99]))
    mean = float(times.mean())
    return Latency(file, batch, len(times), p50, p90, p95, p99, mean, float(times.std() / mean), batch * 1e3 / mean)


def median_stages(run: Callable[[], dict[str, float]], runs: int = MIN_RUNS) -> dict[str, float]:
    """Run a few times and return the median of each stage."""
    taken = [run() for _ in range(runs)]
    return {name: float(np.median([stages[name] for stages in taken])) for name in taken[0]}


def against_first(results: Sequence[Latency], macs: Sequence[int], methods: Sequence[str]) -> list[Latency]:
    """Fill in what compares files: ratio, share and price; MACs 0 are unknown."""
    first, drops = results[0], [result for result, method in zip(results, methods, strict=True) if method == "drop"]
    compared = []
    for result, count in zip(results, macs, strict=True):
        ratio = result.p50_ms / first.p50_ms
        macs_ratio = count / macs[0] if count and macs[0] else None
        saves = macs_ratio is not None and macs_ratio < 1
        share = (1 - ratio) / (1 - macs_ratio) if saves and macs_ratio is not None else None
        price = result.p50_ms / drops[0].p50_ms if drops else None
        compared.append(replace(result, ratio=ratio, macs_ratio=macs_ratio, share=share, price=price))
    return compared
