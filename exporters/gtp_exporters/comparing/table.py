"""The tables of a comparison, for terminals and pages alike: columns and cells in words."""

from collections.abc import Callable
from dataclasses import dataclass

from gtp_exporters.comparing.rows import Comparison, Row
from gtp_exporters.comparing.runs import COMPUTE


@dataclass(frozen=True)
class Column:
    """A column: its head, the text of a row's cell, and whether anything is known for it."""

    head: str
    cell: Callable[[Row], str]
    known: Callable[[Row], bool] = lambda row: True


def _budget(row: Row) -> str:
    if "keep" in row.budget:
        return f"{row.budget['keep']:g}"
    return f"{row.budget['num_prop']} a layer" if row.budget else ""


def _percent(share: float | None, error: float | None) -> str:
    return _number(None if share is None else 100 * share, 2) + ("" if error is None else f" ± {100 * error:.2f}")


def _divergence(row: Row) -> str:
    return f"{row.divergence:.2g}" + ("" if not row.divergence_se else f" ± {row.divergence_se:.1g}")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


COLUMNS = (
    Column("method", lambda row: row.method),
    Column("budget", _budget),
    Column("MACs", lambda row: f"{row.macs_ratio:.3f}"),
    Column("top-1, %", lambda row: _percent(row.top1, row.top1_se), lambda row: row.top1 is not None),
    Column("below dense", lambda row: _percent(row.top1_drop, row.top1_drop_se), lambda row: row.top1 is not None),
    Column("published", lambda row: _number(row.published, 2), lambda row: row.published is not None),
    Column("agrees, %", lambda row: f"{100 * row.agreement:.2f}"),
    Column("divergence", _divergence),
    Column("p50 ms", lambda row: f"{row.p50_ms:.2f}"),
    Column("ratio", lambda row: f"{row.ratio:.3f}"),
    Column("realised, %", lambda row: "-" if row.share is None else f"{100 * row.share:.0f}"),
    Column("MB", lambda row: f"{row.file_bytes / 1e6:.1f}"),
    Column("peak MiB", lambda row: _number(row.peak_mib, 0), lambda row: row.peak_mib is not None),
    Column("front", lambda row: "*" if row.front else ""),
)
WORDS = """\
*MACs*: share of the dense model's. *top-1*: with its standard error; *below dense*: percentage points below the dense
fp32 model, with the standard error of the paired differences. *agrees*: images with the dense fp32 model's class.
*divergence*: of the dense to these class probabilities, in nats. *p50 ms* and *ratio*: median latency, and over the
dense fp32 model's, timed in turn in one process. *realised*: share of the saved MACs that becomes saved time, against
the dense model of the same precision. *peak MiB*: memory of a process that runs it. *front*: no row of this backend is
both faster and closer to the dense model."""


def columns(comparison: Comparison) -> list[Column]:
    """Return the columns for which something is known."""
    return [column for column in COLUMNS if any(map(column.known, comparison.rows))]


def title(comparison: Comparison, backend: str, precision: str) -> str:
    """Return the title of a table."""
    options = {name: value for name, value in comparison.options.get(backend, {}).items() if name != COMPUTE}
    said = "".join(f", {name} {value}" for name, value in options.items())
    return f"{backend} {precision}{said}, batch {comparison.batch}"


def data(comparison: Comparison) -> str:
    """Return what was measured on, in words."""
    lost = f", {comparison.unreadable} more cannot be read" if comparison.unreadable else ""
    return f"{comparison.images} images ({comparison.data}){lost}; weights: {comparison.weights}"
