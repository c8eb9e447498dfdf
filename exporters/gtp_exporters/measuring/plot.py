"""Plots of results: their distance and accuracy against latency, or any measure against another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gtp_exporters.measuring.comparison import Comparison
from gtp_exporters.measuring.result import Result
from gtp_exporters.report.drawing import HEIGHT, WIDTH, Axis, Mark, Panel, draw

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

    measures = [DISTANCE, *([TOP1] if comparison.has_classes else [])]
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
