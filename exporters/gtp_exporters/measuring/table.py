"""Tables of results, for terminals, Markdown and HTML alike: columns and cells in words."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gtp_exporters.measuring.candidate import COMPUTE, PLAIN
from gtp_exporters.measuring.comparison import Comparison
from gtp_exporters.measuring.result import Loss, Result, Timing
from gtp_models.methods.gtp.config import GTPConfig
from gtp_runtime import Footprint
from gtp_runtime.images.class_folders import folder_words
from gtp_runtime.messages import one_line

MARKUP = "|[]`*_\\"
UNKNOWN = "-"


@dataclass(frozen=True)
class Column:
    """A column: its head, the text of a result's cell, and whether anything is known for it."""

    head: str
    cell: Callable[[Result], str]
    known: Callable[[Result], bool] = lambda result: True


def number(value: float | None, digits: int) -> str:
    """Return a number in words; "-" for an unknown one."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def percent(share: float | None, error: float | None = None) -> str:
    """Return a share in percent, with its error."""
    return number(None if share is None else 100 * share, 2) + ("" if error is None else f" ± {100 * error:.2f}")


def distance(loss: Loss) -> str:
    """Return the distance from the dense model, with its error."""
    return f"{loss.distance:.2g}" + (f" ± {loss.distance_se:.1g}" if loss.distance_se else "")


def drop(loss: Loss) -> str:
    """Return the drop of top-1 in points, with its error; "-" where classes are unknown."""
    return percent(loss.top1_drop, loss.top1_drop_se)


def milliseconds(timing: Timing) -> str:
    """Return the median, marked with ~ where the times differ too much to say much."""
    return f"{'~' if timing.is_noisy else ''}{timing.p50_ms:.2f}"


def described(result: Result) -> str:
    """Return the settings of a result in a line."""
    precision = "" if result.precision == PLAIN else f", {result.precision}"
    if result.method != "gtp":
        return f"{result.method}{precision}"
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in result.settings.items()
    }
    config = GTPConfig(**values)
    removed = ", ".join(f"{amount} in layer {layer}" for layer, amount in enumerate(result.num_prop) if amount)
    if len(set(result.num_prop)) == 1:
        removed = f"{result.num_prop[0]} in every layer"
    alpha = f", alpha {config.alpha:g}" if config.axes[2].uses_alpha else ""
    sparsity = f", sparsity {config.sparsity:g}" if config.sparsity < 1 else ""
    return f"{config.selection}, {config.graph}, {config.propagation}{alpha}{sparsity}{precision}: {removed}"


def _budget(result: Result) -> str:
    if "keep" in result.budget:
        return f"{result.budget['keep']:g}"
    return f"{result.budget['num_prop']} a layer" if result.budget else ""


def _of_loss(cell: Callable[[Loss], str]) -> Callable[[Result], str]:
    return lambda result: UNKNOWN if result.loss is None else cell(result.loss)


def _of_timing(cell: Callable[[Timing], str]) -> Callable[[Result], str]:
    return lambda result: UNKNOWN if result.timing is None else cell(result.timing)


def _of_cost(cell: Callable[[Footprint], str]) -> Callable[[Result], str]:
    return lambda result: UNKNOWN if result.cost is None else cell(result.cost)


def _has(name: str) -> Callable[[Result], bool]:
    return lambda result: result.to_dict()[name] is not None


NAME = Column("method", lambda result: result.name)
MACS = Column("MACs", lambda result: f"{result.macs_ratio:.3f}")
DISTANCE = Column("divergence", _of_loss(distance))
MS = Column("p50 ms", _of_timing(milliseconds))
RATIO = Column("ratio", _of_timing(lambda timing: f"{timing.ratio:.3f}"))
DROP = Column("below dense", _of_loss(drop), _has("top1"))
SETTINGS = Column("settings", described)
WHY = Column("not timed", lambda result: result.why, lambda result: bool(result.why))
COMPARED = (
    NAME,
    Column("budget", _budget),
    MACS,
    Column("top-1, %", _of_loss(lambda loss: percent(loss.top1, loss.top1_se)), _has("top1")),
    DROP,
    Column("published", lambda result: number(result.published, 2), _has("published")),
    Column("agrees, %", _of_loss(lambda loss: percent(loss.agreement)), _has("agreement")),
    DISTANCE,
    MS,
    RATIO,
    Column("realised, %", lambda result: number(None if result.share is None else 100 * result.share, 0)),
    Column("MB", lambda result: number(None if result.cost is None else result.cost.file_bytes / 1e6, 1)),
    Column(
        "peak MiB", lambda result: number(None if result.cost is None else result.cost.peak_mib, 0), _has("peak_mib")
    ),
    Column("front", lambda result: "*" if result.is_front else ""),
)
SEARCHED = (Column("", lambda result: result.name), RATIO, MS, DISTANCE, DROP, MACS, SETTINGS, WHY)
VALIDATED = (Column("", lambda result: result.name), RATIO, MS, DISTANCE, DROP, COMPARED[3])
WORDS = """\
*MACs*: share of the dense model's. *top-1*: with its standard error; *below dense*: percentage points below the dense
fp32 model, with the standard error of the paired differences. *agrees*: images with the dense fp32 model's class.
*divergence*: of the dense to these class probabilities, in nats. *p50 ms* and *ratio*: median latency, and over the
dense fp32 model's, timed in turn in one process; `~` marks times that differ by more than a quarter of the median.
*realised*: share of the saved MACs that becomes saved time, against the dense model of the same precision; `-` where
noise is larger. *peak MiB*: memory of a process that runs it. *front*: no row of this backend is both faster and closer
to the dense model."""


def shown(columns: Sequence[Column], results: Sequence[Result]) -> list[Column]:
    """Return the columns for which something is known."""
    return [column for column in columns if any(map(column.known, results))]


def cells(columns: Iterable[Column], results: Iterable[Result]) -> list[list[str]]:
    """Return the text of every cell, a list for each result."""
    return [[column.cell(result) for column in columns] for result in results]


def markdown(columns: Sequence[Column], results: Iterable[Result]) -> list[str]:
    """Return the lines of a table in Markdown."""
    heads = [column.head for column in columns]
    rule = "| " + " | ".join(["---"] + ["---:"] * (len(columns) - 1)) + " |"
    return [_row(heads), rule, *map(_row, cells(columns, results))]


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(map(plain, texts))} |"


def plain(text: str) -> str:
    """Return text from files as one line without Markdown's or HTML's markup in it."""
    escaped = one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in MARKUP else letter for letter in escaped)


def title(comparison: Comparison, backend: str, precision: str) -> str:
    """Return the title of a table of a comparison."""
    options: dict[str, Any] = {
        name: value for name, value in comparison.options.get(backend, {}).items() if name != COMPUTE
    }
    words = "".join(f", {name} {value}" for name, value in options.items())
    return f"{backend} {precision}{words}, batch {comparison.batch}"


def data(comparison: Comparison) -> str:
    """Return what was measured on, in words."""
    lost = f", {comparison.unreadable} more cannot be read" if comparison.unreadable else ""
    folders = folder_words(comparison.class_order, comparison.class_folders)
    classes = f"; {folders}" if folders else ""
    return f"{comparison.images} images ({comparison.data}){lost}{classes}; weights: {comparison.weights}"


def noise_note(results: Iterable[Result]) -> str:
    """Return what to know of the times where some differ too much; "" otherwise."""
    noisy = [result.name for result in results if result.timing is not None and result.timing.is_noisy]
    if not noisy:
        return ""
    return (
        f"the times of {len(noisy)} of the results (marked ~) differ by more than a quarter of their median: the "
        "machine is busy, and their latency says little; measure again when it is idle"
    )
