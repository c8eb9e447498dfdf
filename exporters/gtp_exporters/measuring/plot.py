"""Plots of results as SVG: panels of series, against latency. Whatever comes from files is escaped."""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gtp_exporters.measuring.comparison import Comparison
from gtp_exporters.measuring.result import Result
from gtp_exporters.report.page import make_environment

TEMPLATE = "plot.svg.jinja"
WIDTH, HEIGHT = 300.0, 200.0  # of a panel's axes
LEFT, ACROSS = 64.0, 84.0  # pixels left of the first panel, and between two
LETTER, LEGEND = 8.0, 96.0  # pixels that a letter of the title, and a name of the legend, may take
SMALLEST = 1e-7  # nats: what is less stands here


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place and its text."""

    place: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A result in a panel: its place, half its error bar in pixels, whether it is filled, and a text for it."""

    x: float
    y: float
    error: float
    front: bool
    text: str


@dataclass(frozen=True)
class Panel:
    """One measure. ``lines`` are the marks of each series, in the order of the legend."""

    title: str
    label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    dense: float
    lines: list[list[Mark]]


@dataclass(frozen=True)
class Measure:
    """What a panel shows: value and standard error of a result, and whether the axis is logarithmic."""

    label: str
    value: Callable[[Result], float]
    error: Callable[[Result], float]
    logarithmic: bool

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


def draw(title: str, names: Sequence[str], panels: Sequence[Sequence[Panel]], joined: set[str]) -> str:
    """Return rows of panels as SVG.

    Args:
        title: of all.
        names: of the series.
        panels: each with a list of marks for each series.
        joined: the series whose marks a line joins.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    space = (WIDTH + ACROSS) * len(panels[0])
    return str(
        make_environment(Path(__file__).parent)
        .get_template(TEMPLATE)
        .render(
            title=textwrap.wrap(title, int(space / LETTER)),
            names=names,
            joined=joined,
            a_row=int(space / LEGEND),
            panels=panels,
            width=WIDTH,
            height=HEIGHT,
            left=LEFT,
            across=WIDTH + ACROSS,
        )
    )


def make_panel(
    title: str,
    measure: Measure,
    series: Sequence[Sequence[Result]],
    scaled: Sequence[Result],
    dense: Sequence[Result] = (),
) -> Panel:
    """Return a panel of series of results against their latency.

    Args:
        title, measure: what it shows.
        series: the results of each name.
        scaled: all results that the axes must hold; ``dense`` as well where the measure is linear.
        dense: the dense model's.
    """
    x_axis = Axis.of([row.ratio for row in scaled] + [1.0], False)
    values = [end for row in scaled for end in measure.ends(row)]
    if not measure.logarithmic:
        values += [measure.value(row) for row in dense]
    y_axis = Axis.of(values, measure.logarithmic)

    def mark(row: Result) -> Mark:
        value, error = measure.value(row), measure.error(row)
        y = HEIGHT * (1 - y_axis.share(value))
        top = HEIGHT * (1 - y_axis.share(value + error))
        text = f"{row.name}: ratio {row.ratio:.3f}, {measure.label} {value:.4g}"
        return Mark(WIDTH * x_axis.share(row.ratio), y, max(0.0, y - top), row.is_front, text)

    return Panel(
        title=title,
        label=measure.label,
        x_ticks=[Tick(WIDTH * x_axis.share(value), f"{value:g}") for value in x_axis.ticks()],
        y_ticks=[Tick(HEIGHT * (1 - y_axis.share(value)), f"{value:g}") for value in y_axis.ticks()],
        dense=WIDTH * x_axis.share(1.0),
        lines=[[mark(row) for row in sorted(rows, key=lambda row: row.ratio)] for rows in series],
    )


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high``, both in the logarithm to base 10 where it is logarithmic."""

    low: float
    high: float
    logarithmic: bool

    @staticmethod
    def of(values: Sequence[float], logarithmic: bool) -> "Axis":
        """Return an axis that holds all values, with a margin."""
        places = [math.log10(value) if logarithmic else value for value in values]
        low, high = min(places), max(places)
        margin = 0.08 * (high - low) or (0.5 if logarithmic else 0.05 * abs(high) or 1.0)
        return Axis(low - margin, high + margin, logarithmic)

    def share(self, value: float) -> float:
        """Return the place of a value, 0..1."""
        place = math.log10(value) if self.logarithmic else value
        return (place - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return a few round values within the axis."""
        if self.logarithmic and self.high - self.low >= 1:
            powers = range(math.ceil(self.low), math.floor(self.high) + 1)
            return [10.0**power for power in powers]
        low, high = (10**self.low, 10**self.high) if self.logarithmic else (self.low, self.high)
        rough = (high - low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        first = math.ceil(low / step)
        return [round(number * step, 10) for number in range(first, math.floor(high / step) + 1)]
