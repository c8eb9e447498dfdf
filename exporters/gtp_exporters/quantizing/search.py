"""Finds the attempt that passes the gate: all layers in int8, or without those that lose most."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from gtp_exporters.errors import ExportError, LimitError
from gtp_exporters.graph.structure import Product
from gtp_exporters.measuring.gate import GateReport
from gtp_exporters.quantizing.images import PROBES, TRIALS, Judges, some_of
from gtp_exporters.quantizing.job import Attempt, Job
from gtp_exporters.quantizing.options import QuantizeOptions
from gtp_exporters.quantizing.sensitivity import LayerLoss
from gtp_runtime.errors import GATE_FAILED
from gtp_runtime.latency import in_turn

SECONDS = 2.0  # of timing what the layers in float32 cost
FEW = 2  # products that stay float32 where the gate needs it and none are named
SHOWN = 3  # layers that an error names
Attempts = list[Attempt]
T = TypeVar("T")


class QuantizationFailedError(ExportError):
    """The outputs of quantised graphs differ too much from those of the float32 graphs.

    Attributes:
        reports: the measured values, one report per file.
        losses: divergence of each layer when it alone is quantised, the largest first.
    """

    exit_code = GATE_FAILED

    def __init__(self, message: str, reports: Sequence[GateReport], losses: Sequence[LayerLoss]) -> None:
        super().__init__(message)
        self.reports, self.losses = reports, losses


def search(jobs: Sequence[Job], options: QuantizeOptions, paths: Sequence[Path]) -> tuple[Attempts, list[LayerLoss]]:
    """Return an attempt for each graph, all with the same layers in float32, and what each layer loses alone.

    Where all in int8 fail and no layers are named, the worst one or two products stay float32; with "auto", as many
    layers as it takes. Which, and how many, is chosen on images that calibration saw: the judges only judge.

    Args:
        jobs: the dense baseline's first.
        options: which layers stay float32.
        paths: image files that calibration saw.

    Raises:
        QuantizationFailedError: the gate failed; names the layers that lose most.
    """
    named = () if options.automatic else options.keep_fp32
    attempts = attempt_all(jobs, named)
    if not options.gate or _pass(attempts):
        return attempts, []
    failing = next(attempt.job for attempt in reversed(attempts) if not attempt.report.ok)
    losses = failing.losses(some_of(failing.manifest, paths, PROBES))
    if named:
        raise _failed(attempts, losses)
    order = [layer.layer for layer in losses] if options.automatic else worst(losses, failing.source.products)
    attempts = _with_fewest(jobs, order, some_of(failing.manifest, paths, TRIALS))
    if not _pass(attempts) or not any(attempt.products for attempt in attempts):
        raise _failed(attempts, losses)
    return attempts, losses


def _with_fewest(jobs: Sequence[Job], order: Sequence[str], trials: np.ndarray) -> Attempts:
    """Return the attempts with the fewest layers in float32: as many as the trial images need, more where judges do."""
    trying = [job.on(trials) for job in jobs]
    sure = max(0, len(fewest(order, lambda kept: attempt_all(trying, kept), _pass)[0].kept) - 1)
    return fewest(order[sure:], lambda more: attempt_all(jobs, [*order[:sure], *more]), _pass)


def worst(losses: Sequence[LayerLoss], products: Sequence[Product]) -> list[str]:
    """Return the layers that lose most, the worst first, that together are no more than ``FEW`` products."""
    sizes, chosen = Counter(product.label for product in products), list[str]()
    for layer in losses:
        if sum(sizes[name] for name in chosen) + sizes[layer.layer] <= FEW:
            chosen.append(layer.layer)
    return chosen


def fewest(ranked: Sequence[str], attempt: Callable[[Collection[str]], T], passes: Callable[[T], bool]) -> T:
    """Return the attempt that passes with the fewest of the labels left out, the first of them first.

    The number is doubled until an attempt passes, then halved in between; all left out must pass.
    """
    below, count = 0, 1
    tried = attempt(ranked[:1])
    while not passes(tried) and count < len(ranked):
        below, count = count, min(2 * count, len(ranked))
        tried = attempt(ranked[:count])
    while count - below > 1:
        middle = (below + count) // 2
        again = attempt(ranked[:middle])
        if passes(again):
            tried, count = again, middle
        else:
            below = middle
    return tried


def check_kept(jobs: Sequence[Job], options: QuantizeOptions) -> None:
    """Check the names of the layers that stay float32, before anything is measured.

    Raises:
        LimitError: a layer that is none of these graphs', or nothing is left to quantise.
    """
    labels = list(dict.fromkeys(label for job in jobs for label in job.source.labels))
    kept = () if options.automatic else options.keep_fp32
    unknown = [label for label in kept if label not in labels]
    if unknown:
        raise LimitError(f"no layer is called {', '.join(unknown)}: there are {', '.join(labels)}")
    if not set(labels) - set(kept):
        raise LimitError("keep_fp32 names all layers, so there is nothing to quantise: leave some out")


def attempt_all(jobs: Sequence[Job], kept: Collection[str]) -> Attempts:
    """Quantise and judge every graph with the same layers in float32."""
    return [job.attempt(kept) for job in jobs]


def cost_of(attempt: Attempt, images: Judges) -> float | None:
    """Return the time of an attempt over that with no layer in float32; None where it keeps none."""
    if not attempt.kept:
        return None
    job = attempt.job
    job.progress("timing what the layers in float32 cost")
    runs = [
        job.opened(job.source.quantized(job.source.labels), threads=1),
        job.opened(attempt.graph, threads=1),
    ]
    batch = next(job.inputs(images.pixels))
    every, kept = in_turn([lambda run=run: run(batch) for run in runs], SECONDS)  # type: ignore[misc]
    return float(np.median(kept) / np.median(every))


def _pass(attempts: Attempts) -> bool:
    return all(attempt.report.ok for attempt in attempts)


def _failed(attempts: Attempts, losses: list[LayerLoss]) -> QuantizationFailedError:
    reports = [attempt.report for attempt in attempts]
    missed = "; ".join(f"{report.file}: {problem}" for report in reports for problem in report.problems)
    worst = ", ".join(f"{found.layer} ({found.loss:.2g})" for found in losses[:SHOWN])
    return QuantizationFailedError(
        f"int8 failed its gate ({missed}), so nothing was replaced; the layers that lose most: {worst}; "
        "--keep-fp32 auto leaves out as few as it takes, --calibration and more --calib-data may lose less",
        reports,
        losses,
    )
