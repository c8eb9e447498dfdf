"""The plot of a fitted schedule: the distance from the dense model by the layer that tokens leave in alone."""

import math
from itertools import pairwise

import numpy as np

from gtp_exporters.report.drawing import HEIGHT, WIDTH, Axis, Mark, Panel, draw
from gtp_runtime.manifest import CurveInfo, FittingInfo, Manifest

LINES = (0.25, 0.5, 0.75)  # quantiles of the amounts that were measured: one line for each
LEAST = 1e-12  # a distance that counts as none, as in ``gtp_models.fitting.search``
UNITS = {"divergence": "divergence, nats", "squared_error": "squared error, share"}


def plot_fitting(manifest: Manifest) -> str:
    """Return the curves of a fitted schedule as SVG, a line for each of a few amounts; "" where none are known.

    Layers in which the schedule removes tokens are filled marks.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    fitting = manifest.fitting
    curves = [] if fitting is None else list(filter(_is_whole, fitting.curves))
    if fitting is None or not curves:
        return ""
    amounts = _amounts(curves)
    lines = [[(curve.layer, value) for curve in curves if (value := _at(curve, amount))] for amount in amounts]
    names = [f"{amount} tokens" for amount in amounts]
    return draw("Distance where tokens leave in one layer alone", names, [[_panel(fitting, lines, names)]], set(names))


def _panel(fitting: FittingInfo, lines: list[list[tuple[int, float]]], names: list[str]) -> Panel:
    points = [point for line in lines for point in line]
    x_axis = Axis.of([layer for layer, _ in points], False)
    y_axis = Axis.of([value for _, value in points], True)
    unit = UNITS.get(fitting.measure, fitting.measure)

    def mark(layer: int, value: float, name: str) -> Mark:
        reduces = layer < len(fitting.num_prop) and fitting.num_prop[layer] > 0
        text = f"layer {layer}, {name}: {unit} {value:.3g}"
        return Mark(WIDTH * x_axis.share(layer), HEIGHT * (1 - y_axis.share(value)), 0.0, reduces, text)

    return Panel(
        title="",
        label=unit,
        x_ticks=x_axis.x_ticks(),
        y_ticks=y_axis.y_ticks(),
        dense=None,
        lines=[[mark(*point, name) for point in line] for line, name in zip(lines, names, strict=True)],
        x_label="layer",
    )


def _is_whole(curve: CurveInfo) -> bool:
    """Whether a curve can be drawn: the manifest may come from anywhere."""
    amounts, distances = curve.amounts, curve.distances
    ascending = all(low < high for low, high in pairwise(amounts))
    return 0 < len(amounts) == len(distances) and ascending and all(map(math.isfinite, distances)) and amounts[0] > 0


def _amounts(curves: list[CurveInfo]) -> list[int]:
    every = sorted(amount for curve in curves for amount in curve.amounts)
    return sorted({every[int(share * (len(every) - 1))] for share in LINES})


def _at(curve: CurveInfo, amount: int) -> float | None:
    """Return the distance at an amount, powers between what was measured; None beyond it."""
    if not curve.amounts[0] <= amount <= curve.amounts[-1]:
        return None
    logarithms = np.log(np.maximum(curve.distances, LEAST))
    return float(np.exp(np.interp(math.log(amount), np.log(curve.amounts), logarithms)))
