"""Latency: files are timed in interleaved runs in one process, so that noise of the machine affects all of them.

``in_turn`` times any callables, ``benchmark`` loaded files. ``Latency`` has percentiles, and ratios to the first file.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gtp_runtime.cpus import processor
from gtp_runtime.errors import InputError
from gtp_runtime.footprint import Footprint
from gtp_runtime.manifest import FileEntry
from gtp_runtime.messages import Progress, quiet
from gtp_runtime.placement import Placement
from gtp_runtime.sensors import Conditions, Sensors

MIN_RUNS = 10
WARMUP_SECONDS = 0.2
WARMUP_RUNS = 3


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
        joules: energy for one image, in joules, of all that the counter covers: a processor package (RAPL), a Jetson
            module (INA3221); None where none can be read.
        conditions: temperatures, clocks and throttling while all files were timed; its ``problems`` say why the run is
            not valid. None if not measured.
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
    joules: float | None = None
    conditions: Conditions | None = None

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


def in_turn(
    runs: Sequence[Callable[[], object]],
    seconds: float,
    progress: Progress = quiet,
    rounds: int = MIN_RUNS,
    sensors: Sensors | None = None,
) -> list[list[float]]:
    """Time callables in interleaved runs, about ``seconds`` in total after a warm-up; return the seconds of each run.

    Args:
        runs: the callables.
        seconds: timing of all together, 0 or more.
        progress: called with "benchmarking" and the share done.
        rounds: minimum number of runs of each, even if ``seconds`` is exceeded; 1 or more.
        sensors: are read between the runs.

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
        for index, (run, taken) in enumerate(zip(runs, times, strict=True)):
            if sensors is not None:
                sensors.before()
            before = time.perf_counter()
            run()
            taken.append(time.perf_counter() - before)
            if sensors is not None:
                sensors.after(index, taken[-1])
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
    times = [run() for _ in range(runs)]
    return {name: float(np.median([stages[name] for stages in times])) for name in times[0]}


@runtime_checkable
class Timed(Protocol):
    """What ``benchmark`` times: ``Model`` is such a file."""

    path: Path
    entry: FileEntry
    backend: Any

    @property
    def batch(self) -> int:
        """Images per run."""
        ...

    @property
    def device(self) -> str:
        """What computes, in words."""
        ...

    def timed(self) -> Callable[[], object]:
        """Return a callable that runs one batch."""
        ...

    def placement(self) -> Placement | None:
        """Return where the operators run; None where one device alone could run them."""
        ...

    def stages(self) -> dict[str, float] | None:
        """Return median milliseconds of an engine's stages; None for other backends."""
        ...

    def record(self, kind: str, result: dict[str, Any]) -> bool:
        """Store a result in the manifest; False where it cannot be stored."""
        ...


def benchmark(
    models: Sequence[Timed], seconds: float = 3.0, progress: Progress = quiet, rounds: int = MIN_RUNS
) -> list[Latency]:
    """Time files in interleaved runs in this process; ratios and shares are relative to the first.

    Args:
        models: loaded files; put the dense baseline first.
        seconds: timing of all files together, after a warm-up; 0 or more.
        progress: called with "benchmarking" and the share done.
        rounds: minimum number of runs of each file, even if ``seconds`` is exceeded; 1 or more.

    Raises:
        InputError: no loaded files, files of different batch sizes, or an invalid value of ``seconds`` or ``rounds``.
    """
    check_duration(seconds, rounds)
    if not all(isinstance(model, Timed) for model in models):
        raise InputError("benchmark takes loaded models: load each file with gtp_runtime.load(path)")
    _check_batches(models)
    sensors = Sensors(len(models))
    times = in_turn([model.timed() for model in models], seconds, progress, rounds, sensors)
    results = [summarise(str(model.path), model.batch, taken) for model, taken in zip(models, times, strict=True)]
    conditions, energy = _told_of_simulators(sensors.conditions(), models), sensors.joules()
    results = [
        replace(
            result,
            stages=model.stages(),
            joules=None if joules is None else joules / (result.runs * result.batch),
            conditions=conditions,
        )
        for result, model, joules in zip(results, models, energy, strict=True)
    ]
    entries = [model.entry for model in models]
    return against_first(results, [entry.macs for entry in entries], [entry.method for entry in entries])


def _told_of_simulators(conditions: Conditions, models: Sequence[Timed]) -> Conditions:
    simulated = [model.path.name for model in models if model.backend.info.get("simulated")]
    problems = [f"this machine simulates the device of {name}" for name in simulated]
    return replace(conditions, problems=[*conditions.problems, *problems])


def _check_batches(models: Sequence[Timed]) -> None:
    """Check that all files have one batch size: otherwise the time of a run cannot be compared.

    Raises:
        InputError: they differ.
    """
    if len({model.batch for model in models}) > 1:
        said = ", ".join(f"{model.path}: {model.batch}" for model in models)
        raise InputError(f"files of different batch sizes cannot be compared ({said}): give files of one batch size")


def measured_by(model: Timed) -> dict[str, Any]:
    """Return on what and when a result was measured: "backend", "device", "processor" and "date" (UTC, ISO 8601), and
    "placement" where operators may have fallen back (``Placement``).
    """
    now, placement = datetime.now(timezone.utc).isoformat(timespec="seconds"), model.placement()
    where = {} if placement is None else {"placement": placement.to_dict()}
    return {"backend": model.backend.name, "device": model.device, "processor": processor(), "date": now, **where}


def record_latency(models: Sequence[Timed], results: Sequence[Latency]) -> bool:
    """Store what ``benchmark`` measured in the manifest of each file; "against" names the file compared with.

    Returns:
        Whether all were stored: see ``Model.record``.
    """
    kept = [
        model.record("latency", record) for model, record in zip(models, latency_records(models, results), strict=True)
    ]
    return all(kept)


def latency_records(models: Sequence[Timed], results: Sequence[Latency]) -> list[dict[str, Any]]:
    """Return what a manifest keeps of each file's latency; "against" names the file compared with."""
    first = models[0].path
    return [
        {
            **result.to_dict(),
            "file": model.path.name,
            "against": first.name if first.parent == model.path.parent else str(first),
            **model.backend.info,
            **measured_by(model),
        }
        for model, result in zip(models, results, strict=True)
    ]
