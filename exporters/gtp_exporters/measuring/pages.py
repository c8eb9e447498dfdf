"""How results are shown: tables for terminals, Markdown and HTML, plots as SVG, and the files of a comparison.

compare.json has all rows, compare.md the tables, compare.svg the plot.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtp_exporters.measuring.candidate import COMPUTE, PLAIN
from gtp_exporters.measuring.comparison import FORMAT, Comparison
from gtp_exporters.measuring.result import Loss, Result, Timing
from gtp_exporters.report.drawing import HEIGHT, WIDTH, Axis, Mark, Panel, draw
from gtp_models.methods.gtp.config import GTPConfig
from gtp_runtime import Footprint, atomic
from gtp_runtime.accuracy import DIVERGENCE
from gtp_runtime.errors import OutputError
from gtp_runtime.images.class_folders import folder_words
from gtp_runtime.messages import one_line
from gtp_runtime.opening import read_regular

MARKUP = "|[]`*_\\"
UNKNOWN = "-"


@dataclass(frozen=True)
class Column:
    """A column: its head, the text of a result's cell, whether anything is known for it, and its head by the losses
    that are shown, where these say what it is of.
    """

    head: str
    cell: Callable[[Result], str]
    known: Callable[[Result], bool] = lambda result: True
    named: Callable[[Loss], str] | None = None


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


def _measure(name: str) -> Column:
    """Return the column of a further measure, where it is known."""

    def value(result: Result) -> float | None:
        return None if result.loss is None else result.loss.measures.get(name)

    return Column(name, lambda result: number(value(result), 4), lambda result: value(result) is not None)


def _has(name: str) -> Callable[[Result], bool]:
    return lambda result: result.to_dict()[name] is not None


NAME = Column("method", lambda result: result.name)
MACS_COLUMN = Column("MACs", lambda result: f"{result.macs_ratio:.3f}")
VALUE = Column(
    "value",
    _of_loss(lambda loss: UNKNOWN if loss.value is None else f"{loss.value:.4g}"),
    _has("value"),
    lambda loss: loss.metric,
)
DISTANCE_COLUMN = Column(
    "divergence",
    _of_loss(distance),
    named=lambda loss: loss.metric if loss.value is None else f"{loss.metric}, worse by",
)
MS = Column("p50 ms", _of_timing(milliseconds))
RATIO = Column("ratio", _of_timing(lambda timing: f"{timing.ratio:.3f}"))
DROP = Column("below dense", _of_loss(drop), _has("top1"))
SETTINGS = Column("settings", described)
WHY = Column("not timed", lambda result: result.why, lambda result: bool(result.why))
TOP1_COLUMN = Column(
    "top-1, %",
    _of_loss(lambda loss: percent(loss.top1, loss.top1_se)),
    _has("top1"),
    lambda loss: f"{loss.quality or 'top-1'}, %",
)
MEASURES = tuple(map(_measure, ("recall@1", "mAP", "cosine", "neighbour agreement", "correlation")))
COMPARED = (
    NAME,
    Column("budget", _budget),
    MACS_COLUMN,
    TOP1_COLUMN,
    DROP,
    Column("published", lambda result: number(result.published, 2), _has("published")),
    Column("agrees, %", _of_loss(lambda loss: percent(loss.agreement)), _has("agreement")),
    VALUE,
    DISTANCE_COLUMN,
    *MEASURES,
    MS,
    RATIO,
    Column("realised, %", lambda result: number(None if result.share is None else 100 * result.share, 0)),
    Column("MB", lambda result: number(None if result.cost is None else result.cost.file_bytes / 1e6, 1)),
    Column(
        "peak MiB", lambda result: number(None if result.cost is None else result.cost.peak_mib, 0), _has("peak_mib")
    ),
    Column("front", lambda result: "*" if result.is_front else ""),
)
SEARCHED = (Column("", lambda result: result.name), RATIO, MS, VALUE, DISTANCE_COLUMN, DROP, MACS_COLUMN, SETTINGS, WHY)
VALIDATED = (Column("", lambda result: result.name), RATIO, MS, VALUE, DISTANCE_COLUMN, DROP, TOP1_COLUMN)
ABOUT_CLASSES = """\
*agrees*: images with the dense fp32 model's class. *divergence*: of the dense to these class probabilities, in nats."""


ABOUT = """\
*MACs*: share of the dense model's. *top-1*: with its standard error; *below dense*: percentage points below the dense
fp32 model, with the standard error of the paired differences. {measured} *p50 ms* and *ratio*: median latency, and over
the dense fp32 model's, timed in turn in one process; `~` marks times that differ by more than a quarter of the median.
*realised*: share of the saved MACs that becomes saved time, against the dense model of the same precision; `-` where
noise is larger. *peak MiB*: memory of a process that runs it. *front*: no row of this backend is both faster and closer
to the dense model."""


def words(results: Sequence[Result]) -> str:
    """Return what the columns of a comparison mean."""
    loss = _a_loss(results)
    about = ABOUT_CLASSES
    if loss is not None and loss.metric != DIVERGENCE.name:
        unit = f" ({plain(loss.unit)})" if loss.unit else ""
        whose = "how much worse it is than" if loss.value is not None else "away from the answers of"
        about = f"*{plain(loss.metric)}*{unit}: {whose} the dense fp32 model, mean over the images."
    return ABOUT.format(measured=about)


def _a_loss(results: Iterable[Result]) -> Loss | None:
    """Return one of the losses, which are all of one metric; None where there is none."""
    return next((result.loss for result in results if result.loss is not None), None)


def shown(columns: Sequence[Column], results: Sequence[Result]) -> list[Column]:
    """Return the columns for which something is known, with their heads."""
    loss, known = _a_loss(results), [column for column in columns if any(map(column.known, results))]
    return [replace(one, head=one.named(loss)) if one.named is not None and loss is not None else one for one in known]


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


SMALLEST = 1e-7  # nats: what is less stands here


@dataclass(frozen=True)
class Measure:
    """What an axis shows.

    Attributes:
        label: of the axis.
        value, error: value and standard error of a result.
        logarithmic: whether the axis is.
        dense: the dense model's, where it is always the same and is to be in the plot.
    """

    label: str
    value: Callable[[Result], float]
    error: Callable[[Result], float] = lambda result: 0.0
    logarithmic: bool = False
    dense: float | None = None

    def ends(self, result: Result) -> tuple[float, float]:
        """Return the ends of the error bar, which is as long on both sides."""
        value, top = self.value(result), self.value(result) + self.error(result)
        return (value * value / top if self.logarithmic else 2 * value - top), top


def _distance(result: Result) -> float:
    return max(result.distance, SMALLEST)


def _distance_se(result: Result) -> float:
    return (result.loss and result.loss.distance_se) or 0.0


def _top1(result: Result) -> float:
    return 100 * ((result.loss and result.loss.top1) or 0.0)


def _top1_se(result: Result) -> float:
    return 100 * ((result.loss and result.loss.top1_drop_se) or 0.0)


DISTANCE = Measure("divergence, nats", _distance, _distance_se, True)
TOP1 = Measure("top-1, %", _top1, _top1_se, False)


def measure_of(results: Sequence[Result]) -> Measure:
    """Return the axis of the distance of results: logarithmic, unless one is better than the dense model."""
    loss = _a_loss(results)
    label = DISTANCE.label if loss is None else f"{loss.metric}{', worse by' if loss.value is not None else ''}"
    label += f", {loss.unit}" if loss is not None and loss.unit else ""
    if loss is None or all(result.distance >= 0 for result in results if result.loss is not None):
        return replace(DISTANCE, label=label)
    return replace(DISTANCE, label=label, value=lambda result: result.distance, logarithmic=False)


LATENCY = Measure("latency over the dense fp32 model's", lambda result: result.ratio, dense=1.0)
MACS = Measure("MACs over the dense model's", lambda result: result.macs_ratio, dense=1.0)


def plot_comparison(comparison: Comparison) -> str:
    """Return the plot of a comparison: distance and top-1 of every row against its latency, a line for each method.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    names = list(dict.fromkeys(row.name for row in comparison.rows if row.budget))
    runs = [run for run in comparison.runs() if any(row.budget for row in comparison.of(*run))]
    reduced = [row for row in comparison.rows if row.budget]
    dense = [row for row in comparison.rows if not row.budget]

    def panel(run: tuple[str, str], measure: Measure) -> Panel:
        rows = [row for row in comparison.of(*run) if row.budget]
        series = [[row for row in rows if row.name == name] for name in names]
        return make_panel(" ".join(run), measure, series, reduced, dense)

    loss = _a_loss(comparison.rows)
    top1 = replace(TOP1, label=f"{(loss and loss.quality) or 'top-1'}, %")
    measures = [measure_of(comparison.rows), *([top1] if comparison.has_classes else [])]
    panels = [[panel(run, measure) for run in runs] for measure in measures]
    if len(runs) == 1:  # side by side
        panels = [[panel for row in panels for panel in row]]
    return draw(comparison.title, names, panels, joined=set(names))


def make_panel(
    title: str,
    measure: Measure,
    series: Sequence[Sequence[Result]],
    scaled: Sequence[Result],
    dense: Sequence[Result] = (),
    across: Measure = LATENCY,
) -> Panel:
    """Return a panel of series of results against their latency, or against another measure.

    Args:
        title, measure: what it shows.
        series: the results of each name.
        scaled: all results that the axes must hold; ``dense`` as well where the measure is linear.
        dense: the dense model's.
        across: what the horizontal axis shows.
    """
    always = [] if across.dense is None else [across.dense]
    x_axis = Axis.of([across.value(row) for row in scaled] + always, across.logarithmic)
    values = [end for row in scaled for end in measure.ends(row)]
    if not measure.logarithmic:
        values += [measure.value(row) for row in dense]
    y_axis = Axis.of(values, measure.logarithmic)

    def mark(row: Result) -> Mark:
        value, error = measure.value(row), measure.error(row)
        y = HEIGHT * (1 - y_axis.share(value))
        top = HEIGHT * (1 - y_axis.share(value + error))
        x = across.value(row)
        text = f"{row.name}: {across.label} {x:.3f}, {measure.label} {value:.4g}"
        return Mark(WIDTH * x_axis.share(x), y, max(0.0, y - top), row.is_front, text)

    return Panel(
        title=title,
        label=measure.label,
        x_ticks=x_axis.x_ticks(),
        y_ticks=y_axis.y_ticks(),
        dense=None if across.dense is None else WIDTH * x_axis.share(across.dense),
        lines=[[mark(row) for row in sorted(rows, key=across.value)] for rows in series],
        x_label=across.label,
    )


JSON_NAME, PAGE_NAME, PLOT_NAME = "compare.json", "compare.md", "compare.svg"
NAMES = (PLOT_NAME, PAGE_NAME, JSON_NAME)  # in the order in which they are written
OURS = FORMAT.rpartition(" ")[0]
LARGEST = 1 << 26  # bytes


def check_output(directory: Path) -> None:
    """Check that results can be written to a directory, at no cost.

    Raises:
        OutputError: it is a file, it cannot be written, or files of the user's have the names of ours.
    """
    place = next(place for place in (directory, *directory.parents) if place.exists())
    if not place.is_dir():
        raise OutputError(f"{place} is a file: -o names the directory of the results")
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"{place} cannot be written: choose another -o")
    standing = [name for name in NAMES if os.path.lexists(directory / name)]
    if standing and not _is_ours(directory / JSON_NAME):
        raise OutputError(
            f"{directory} holds {', '.join(standing)}, not written by gtp-export: choose another -o, or move it away"
        )


def write_comparison(comparison: Comparison, directory: Path) -> None:
    """Write all files, the JSON last, in place of earlier ones.

    Raises:
        OutputError: the disk fails.
        MissingPackageError: Jinja2 is not installed.
    """
    contents = {
        PLOT_NAME: plot_comparison(comparison),
        PAGE_NAME: comparison_page(comparison),
        JSON_NAME: json.dumps(comparison.to_dict(), indent=1) + "\n",
    }
    for name in NAMES:
        try:
            atomic.write_bytes(directory / name, contents[name].encode())
        except OSError as error:
            raise OutputError(
                f"cannot write {directory / name}: {error.strerror or error}; choose another -o"
            ) from error


def comparison_page(comparison: Comparison) -> str:
    """Return the tables of a comparison as a page in Markdown."""
    return "\n".join(_lines(comparison)) + "\n"


def _lines(comparison: Comparison) -> Iterator[str]:
    yield f"# {plain(comparison.title)}: methods compared\n"
    yield f"{plain(data(comparison))}. Latency: of {comparison.rounds} rounds, the one with the median ratio.\n"
    loss = _a_loss(comparison.rows)
    measured = DIVERGENCE.name if loss is None else loss.metric
    quality = f" and {(loss and loss.quality) or 'top-1'}" if comparison.has_classes else ""
    yield f"![{plain(measured).capitalize()}{quality} against latency]({PLOT_NAME})\n"
    columns = shown(COMPARED, comparison.rows)
    for backend, precision in comparison.runs():
        yield f"## {plain(title(comparison, backend, precision))}\n"
        yield from markdown(columns, comparison.of(backend, precision))
        yield ""
    yield words(comparison.rows)
    if note := noise_note(comparison.rows):
        yield f"\nNoise: {note}."
    if comparison.sources:
        yield "\nPublished figures, top-1 in percent:\n"
        yield from (f"- {plain(name)}: {plain(source)}" for name, source in comparison.sources.items())
    if comparison.skipped:
        yield "\nNot compared:\n"
        yield from (f"- {plain(entry.what)}: {plain(entry.why)}" for entry in comparison.skipped)
    yield "\nMade by `gtp-export compare`. To compare machines, use ratios, not milliseconds."


def _is_ours(path: Path) -> bool:
    try:
        return str(json.loads(read_regular(path, LARGEST))["format"]).startswith(OURS)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
