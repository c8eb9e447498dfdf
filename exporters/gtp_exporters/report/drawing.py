"""Plots as SVG: rows of panels, each with series of marks; and Jinja's environment, which escapes all that comes from
files.

It loads no torch: the page of an export is written on devices too.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtp_exporters.errors import MissingPackageError

TEMPLATE = "plot.svg.jinja"
WIDTH, HEIGHT = 300.0, 200.0  # of a panel's axes
LEFT, ACROSS = 64.0, 84.0  # pixels left of the first panel, and between two
LETTER, LEGEND = 8.0, 96.0  # pixels that a letter of the title, and a name of the legend, may take


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its place and its text."""

    place: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A value in a panel: its place, half its error bar in pixels, whether it is filled, and a text for it."""

    x: float
    y: float
    error: float
    front: bool
    text: str


@dataclass(frozen=True)
class Panel:
    """One measure. ``lines`` are the marks of each series, in the order of the legend. The dense model is at ``dense``
    on the x axis; None where it has no place there.
    """

    title: str
    label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    dense: float | None
    lines: list[list[Mark]]
    x_label: str = "latency over the dense fp32 model's"


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

    def x_ticks(self) -> list[Tick]:
        """Return the marks of a panel's lower edge."""
        return [Tick(WIDTH * self.share(value), f"{value:g}") for value in self.ticks()]

    def y_ticks(self) -> list[Tick]:
        """Return the marks of a panel's left edge."""
        return [Tick(HEIGHT * (1 - self.share(value)), f"{value:g}") for value in self.ticks()]

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


def make_environment(templates: Path) -> Any:
    """Return Jinja's environment for the templates of a folder; whatever they show is escaped.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingPackageError("jinja2 is not installed: pip install 'gtp-export[report]'") from error
    return Environment(
        autoescape=True,
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
