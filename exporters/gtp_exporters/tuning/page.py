"""``tune.html``: the front of a search as a plot and a table. It needs no network and no script."""

import math
from dataclasses import dataclass
from pathlib import Path

from gtp_exporters.report.page import make_environment
from gtp_exporters.tuning.outcome import BETTER, RECIPE, Outcome, called
from gtp_exporters.tuning.results import Result

TEMPLATE = "tune.html.jinja"
WIDTH, HEIGHT = 640, 320  # of the plot's area
LEAST = 1e-7  # nats; a divergence of 0 has no logarithm


def render(outcome: Outcome) -> str:
    """Return the page as HTML. Whatever comes from files is escaped.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    plot = Plot.of(outcome)
    return (
        make_environment(Path(__file__).parent)
        .get_template(TEMPLATE)
        .render(outcome=outcome, plot=plot, rows=[_row(outcome, result) for result in _shown(outcome)], files=FILES)
    )


FILES = {"recipe": RECIPE, "better": BETTER}


def _shown(outcome: Outcome) -> list[Result]:
    own = [] if any(result.trial is None for result in outcome.front) else [outcome.default]
    return [*own, *outcome.front]


def _row(outcome: Outcome, result: Result) -> dict[str, str]:
    """Return what the table shows of a result, as text."""
    assert result.loss is not None and result.timing is not None
    loss, timing = result.loss, result.timing
    return {
        "name": called(result) + ("".join(f", {mark}" for mark in marks(outcome, result))),
        "ratio": f"{timing.ratio:.3f}",
        "ms": f"{timing.p50_ms:.2f}",
        "divergence": f"{loss.divergence:.2g} ± {loss.divergence_se:.1g}",
        "drop": "–" if loss.drop is None else f"{loss.drop:.2f} ± {loss.drop_se:.2f}",
        "macs": f"{result.macs_ratio:.3f}",
        "settings": described(result),
    }


def marks(outcome: Outcome, result: Result) -> list[str]:
    """Return how a result is marked in tables."""
    is_chosen = outcome.chosen is not None and result.trial == outcome.chosen.trial
    is_better = outcome.better is not None and result.trial == outcome.better.trial
    return [*(["chosen"] if is_chosen else []), *(["beats the default"] if is_better else [])]


def described(result: Result) -> str:
    """Return the settings of a result in a line."""
    config = result.proposal.settings
    removed = ", ".join(f"{amount} in layer {layer}" for layer, amount in enumerate(result.num_prop) if amount)
    if len(set(result.num_prop)) == 1:
        removed = f"{result.num_prop[0]} in every layer"
    alpha = f", alpha {config.alpha:g}" if config.axes[2].uses_alpha else ""
    sparsity = f", sparsity {config.sparsity:g}" if config.sparsity < 1 else ""
    precision = "" if result.precision == "fp32" else f", {result.precision}"
    return f"{config.selection}, {config.graph}, {config.propagation}{alpha}{sparsity}{precision}: {removed}"


@dataclass(frozen=True)
class Point:
    """A result in the plot: its place in pixels, its kind, and a text."""

    x: float
    y: float
    kind: str
    text: str


@dataclass(frozen=True)
class Plot:
    """The plot: latency relative to dense from left to right, divergence upwards, logarithmic.

    Attributes:
        width, height: of its area in pixels.
        points: every result that was timed, the marked ones last.
        line: the front as an SVG path.
        across, up: ticks of both axes: the place in pixels, and the label.
    """

    width: int
    height: int
    points: list[Point]
    line: str
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]

    @classmethod
    def of(cls, outcome: Outcome) -> "Plot":
        """Return the plot of a search."""
        timed = [result for result in outcome.results if result.timing is not None]
        ratios = [result.objectives[-1] for result in timed]
        logs = [_log(result) for result in timed]
        left = math.floor(10 * min(ratios)) / 10
        right = max(left + 0.1, math.ceil(10 * max(1.0, *ratios)) / 10)
        low, high = math.floor(min(logs)), math.ceil(max(logs) + 1e-9)

        def place(result: Result) -> tuple[float, float]:
            across = (result.objectives[-1] - left) / (right - left)
            up = (_log(result) - low) / (high - low)
            return round(across * WIDTH, 1), round((1 - up) * HEIGHT, 1)

        kinds = {result.trial: "front" for result in outcome.front}
        for kind in ("default", "better", "chosen"):
            if (result := getattr(outcome, kind)) is not None:
                kinds[result.trial] = kind
        points = [Point(*place(result), kinds.get(result.trial, "timed"), called(result)) for result in timed]
        line = "M" + "L".join("{} {}".format(*place(result)) for result in outcome.front)
        tenths = range(round(10 * left), round(10 * right) + 1)
        across = [(round((tenth / 10 - left) / (right - left) * WIDTH, 1), f"{tenth / 10:.1f}") for tenth in tenths]
        decades = range(low, high + 1)
        up = [(round((1 - (power - low) / (high - low)) * HEIGHT, 1), f"1e{power}") for power in decades]
        return cls(WIDTH, HEIGHT, sorted(points, key=lambda point: point.kind != "timed"), line, across, up)


def _log(result: Result) -> float:
    assert result.loss is not None
    return math.log10(max(LEAST, result.loss.divergence))
