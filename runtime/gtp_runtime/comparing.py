"""Compares loaded files: latency, in turn."""

from collections.abc import Sequence
from dataclasses import replace

from gtp_runtime import latency, timing
from gtp_runtime.errors import InputError
from gtp_runtime.model import Model
from gtp_runtime.progress import Progress, quiet


def benchmark(
    models: Sequence[Model], seconds: float = 3.0, progress: Progress = quiet, rounds: int = timing.MIN_RUNS
) -> list[latency.Latency]:
    """Time files in turn in this process; ratios and shares are against the first.

    Args:
        models: loaded files; put the dense twin first.
        seconds: for all together, after a warm-up; 0 or more.
        progress: told "benchmarking" and the share done.
        rounds: how often each runs at least, however long that takes; 1 or more.

    Raises:
        InputError: no loaded files; ``seconds`` or ``rounds`` that are not such numbers.
    """
    timing.check_duration(seconds, rounds)
    if not all(isinstance(model, Model) for model in models):
        raise InputError("benchmark times loaded files: give gtp_runtime.load(path) of each")
    times = timing.in_turn([model.timed() for model in models], seconds, progress, rounds)
    results = [
        latency.summarise(str(model.path), model.batch, taken) for model, taken in zip(models, times, strict=True)
    ]
    results = [replace(result, stages=model.stages()) for result, model in zip(results, models, strict=True)]
    entries = [model.entry for model in models]
    return latency.against_first(results, [entry.macs for entry in entries], [entry.method for entry in entries])
