"""Latency of files that were timed in turn, and how they compare."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np


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
        overhead: its p50 over that of the free drop in the same run (``--method drop``: as many tokens are dropped
            without any selection, so it is the least time that the schedule can take); None without one.
        stages: medians of an engine's parts in milliseconds, by trtexec's definitions: "h2d", "compute", "d2h",
            "enqueue"; None for other files.
        quantiles_ms: the distribution: the times that 0, 5, 10, ..., 100 % of the runs do not exceed.
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
    overhead: float | None = None
    stages: dict[str, float] | None = None
    quantiles_ms: list[float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def summarise(file: str, batch: int, seconds: Sequence[float]) -> Latency:
    """Turn times into percentiles."""
    times = np.asarray(seconds) * 1e3
    p50, p90, p95, p99 = (float(value) for value in np.percentile(times, [50, 90, 95, 99]))
    quantiles = [float(value) for value in np.percentile(times, range(0, 101, 5))]
    mean = float(times.mean())
    spread, throughput = float(times.std() / mean), batch * 1e3 / mean
    return Latency(file, batch, len(times), p50, p90, p95, p99, mean, spread, throughput, quantiles_ms=quantiles)


def against_first(results: Sequence[Latency], macs: Sequence[int], methods: Sequence[str]) -> list[Latency]:
    """Fill in what compares files: ratio, share and overhead; MACs 0 are unknown."""
    first, drops = results[0], [result for result, method in zip(results, methods, strict=True) if method == "drop"]
    compared = []
    for result, count in zip(results, macs, strict=True):
        ratio = result.p50_ms / first.p50_ms
        macs_ratio = count / macs[0] if count and macs[0] else None
        saves = macs_ratio is not None and macs_ratio < 1
        share = (1 - ratio) / (1 - macs_ratio) if saves and macs_ratio is not None else None
        overhead = result.p50_ms / drops[0].p50_ms if drops else None
        compared.append(replace(result, ratio=ratio, macs_ratio=macs_ratio, share=share, overhead=overhead))
    return compared
