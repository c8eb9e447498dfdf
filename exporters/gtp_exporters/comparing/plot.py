"""compare.svg: divergence and top-1 of every row against its latency, a line for each method."""

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gtp_exporters.comparing.rows import Comparison, Row
from gtp_exporters.errors import MissingPackageError

TEMPLATE = "compare.svg.jinja"
WIDTH, HEIGHT = 300.0, 200.0  # of a panel's axes
LEFT, ACROSS = 64.0, 84.0  # pixels left of the first panel, and between two
LETTER, LEGEND = 8.0, 96.0  # pixels that a letter of the title, and a method of the legend, may take
SMALLEST = 1e-7  # nats: what is less stands here


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place and its text."""

    place: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A row in a panel: its place, half its error bar in pixels, whether it is on the front, and a text for it."""

    x: float
    y: float
    error: float
    front: bool
    text: str


@dataclass(frozen=True)
class Panel:
    """One measure in one run. ``lines`` are the marks of each method, in the order of the legend."""

    title: str
    label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    dense: float
    lines: list[list[Mark]]


@dataclass(frozen=True)
class Measure:
    """What a panel shows: value and standard error of a row, and whether the axis is logarithmic."""

    label: str
    value: Callable[[Row], float]
    error: Callable[[Row], float]
    logarithmic: bool

    def ends(self, row: Row) -> tuple[float, float]:
        """Return the ends of the error bar, which is as long on both sides."""
        value, top = self.value(row), self.value(row) + self.error(row)
        return (value * value / top if self.logarithmic else 2 * value - top), top


DIVERGENCE = Measure(
    "divergence, nats", lambda row: max(row.divergence, SMALLEST), lambda row: row.divergence_se or 0.0, True
)
TOP1 = Measure("top-1, %", lambda row: 100 * (row.top1 or 0.0), lambda row: 100 * (row.top1_drop_se or 0.0), False)


def plot(comparison: Comparison) -> str:
    """Return the plot as SVG. Whatever comes from files is escaped.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingPackageError("jinja2 is not installed: pip install 'gtp-export[report]'") from error
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    methods = list(dict.fromkeys(row.method for row in comparison.rows if row.budget))
    runs = [run for run in comparison.runs() if any(row.budget for row in comparison.of(*run))]
    measures = [DIVERGENCE, *([TOP1] if comparison.has_classes else [])]
    panels = [[_panel(comparison, run, measure, methods) for run in runs] for measure in measures]
    if len(runs) == 1:  # side by side
        panels = [[panel for row in panels for panel in row]]
    space = (WIDTH + ACROSS) * len(panels[0])
    return environment.get_template(TEMPLATE).render(
        title=textwrap.wrap(comparison.title, int(space / LETTER)),
        methods=methods,
        a_row=int(space / LEGEND),
        panels=panels,
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        across=WIDTH + ACROSS,
    )


def _panel(comparison: Comparison, run: tuple[str, str], measure: Measure, methods: Sequence[str]) -> Panel:
    rows = [row for row in comparison.of(*run) if row.budget]
    every = [row for row in comparison.rows if row.budget]
    x_axis = Axis.of([row.ratio for row in every] + [1.0], False)
    values = [end for row in every for end in measure.ends(row)]
    if not measure.logarithmic:
        values += [measure.value(row) for row in comparison.rows if row.method not in methods]
    y_axis = Axis.of(values, measure.logarithmic)

    def mark(row: Row) -> Mark:
        value, error = measure.value(row), measure.error(row)
        y = HEIGHT * (1 - y_axis.share(value))
        top = HEIGHT * (1 - y_axis.share(value + error))
        text = f"{row.method}: ratio {row.ratio:.3f}, {measure.label} {value:.4g}"
        return Mark(WIDTH * x_axis.share(row.ratio), y, max(0.0, y - top), row.front, text)

    by_method = [sorted((row for row in rows if row.method == name), key=lambda row: row.ratio) for name in methods]
    return Panel(
        title=" ".join(run),
        label=measure.label,
        x_ticks=[Tick(WIDTH * x_axis.share(value), f"{value:g}") for value in x_axis.ticks()],
        y_ticks=[Tick(HEIGHT * (1 - y_axis.share(value)), f"{value:g}") for value in y_axis.ticks()],
        dense=WIDTH * x_axis.share(1.0),
        lines=[[mark(row) for row in found] for found in by_method],
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
