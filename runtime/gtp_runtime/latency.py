"""Latency of files that were timed in interleaved runs, and their comparison."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from gtp_runtime.footprint import Footprint


@dataclass(frozen=True)
class Latency:
    """Times of one file, in milliseconds per run.

    Attributes:
        file: its name.
        batch: images per run.
        runs: number of timed runs.
        p50_ms, p90_ms, p95_ms, p99_ms, mean_ms: percentiles and mean.
        cv: coefficient of variation: standard deviation over mean.
        throughput: images per second, from the mean.
        macs_ratio: its MACs over the first file's; None if unknown.
        ratio: its p50 over the first file's.
        share: share of the MACs saved relative to the first file that becomes saved time; None if none are saved.
        overhead: its p50 over that of the drop baseline with the same schedule in the same run (``--method drop`` drops
            the same number of tokens in each layer without selecting them, which is the lower bound for a schedule);
            None without one.
        stages: medians of an engine's stages in milliseconds, as trtexec defines them: "h2d", "compute", "d2h",
            "enqueue"; None for other files.
        quantiles_ms: the distribution: the times that 0, 5, 10, ..., 100 % of the runs do not exceed.
        footprint: size, peak memory and cold start; None if not measured.
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
    footprint: Footprint | None = None

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
    """Fill in what compares files: ratio, share and overhead; MACs 0 are unknown.

    A backbone's MACs tell its schedule: a file is held against the drop of as many.
    """
    first, files = results[0], list(zip(results, macs, methods, strict=True))
    drops = {count: result.p50_ms for result, count, method in files if method == "drop"}
    compared = []
    for result, count, _ in files:
        ratio = result.p50_ms / first.p50_ms
        macs_ratio = count / macs[0] if count and macs[0] else None
        saves = macs_ratio is not None and macs_ratio < 1
        share = (1 - ratio) / (1 - macs_ratio) if saves and macs_ratio is not None else None
        overhead = result.p50_ms / drops[count] if count in drops else None
        compared.append(replace(result, ratio=ratio, macs_ratio=macs_ratio, share=share, overhead=overhead))
    return compared
