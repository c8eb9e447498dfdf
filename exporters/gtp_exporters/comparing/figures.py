"""Puts what was measured of a case into its row."""

from dataclasses import dataclass

from gtp_exporters.comparing.cases import Case
from gtp_exporters.comparing.rows import Row
from gtp_exporters.comparing.runs import Run
from gtp_runtime import Accuracy, Footprint


@dataclass(frozen=True)
class Timed:
    """Median latency in milliseconds, its ratio to the dense fp32 model's, and that of the dense one in this run."""

    p50_ms: float
    ratio: float
    dense_ratio: float


def of_baseline(compared: Accuracy) -> Accuracy:
    """Return the dense baseline's accuracy from that of a file beside it."""
    top1, images = compared.dense_top1, compared.images
    error = None if top1 is None or images < 2 else (top1 * (1 - top1) / (images - 1)) ** 0.5
    return Accuracy(
        images,
        top1=top1,
        top1_se=error,
        top5=compared.dense_top5,
        top1_drop=None if top1 is None else 0.0,
        top1_drop_se=None if error is None else 0.0,
        agreement=1.0,
        divergence=0.0,
        divergence_se=None if images < 2 else 0.0,
        unreadable=compared.unreadable,
        unreadable_images=compared.unreadable_images,
    )


def make_row(case: Case, run: Run, accuracy: Accuracy, cost: Footprint, timed: Timed) -> Row:
    """Return the row of a case in a run."""
    plan = case.plan
    saved = 1 - plan.ratio
    return Row(
        method=case.method,
        budget={} if case.budget is None else case.budget.given,
        backend=run.backend,
        precision=run.precision,
        num_prop=list(plan.num_prop),
        settings=plan.settings.described(),
        command=list(case.command),
        macs=plan.backbone,
        macs_ratio=plan.ratio,
        top1=accuracy.top1,
        top1_se=accuracy.top1_se,
        top5=accuracy.top5,
        top1_drop=accuracy.top1_drop,
        top1_drop_se=accuracy.top1_drop_se,
        images=accuracy.images,
        unreadable=accuracy.unreadable,
        agreement=accuracy.agreement or 0.0,
        divergence=accuracy.divergence or 0.0,
        divergence_se=accuracy.divergence_se,
        p50_ms=timed.p50_ms,
        ratio=timed.ratio,
        share=(1 - timed.ratio / timed.dense_ratio) / saved if saved > 0 else None,
        file_bytes=cost.file_bytes,
        peak_mib=cost.peak_mib,
        cold_start_ms=cost.cold_start_ms,
        published=case.published,
    )
