"""The page: what the template shows, from the manifest and the samples; with the plot of a fitted schedule."""

import base64
import math
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gtp_exporters.report.drawing import HEIGHT, WIDTH, Axis, Mark, Panel, draw, make_environment
from gtp_exporters.report.samples import Sample, make_map
from gtp_runtime.manifest import CurveInfo, FittingInfo, Manifest
from gtp_runtime.placement import Placement
from gtp_runtime.sensors import Conditions

TEMPLATE = "report.html.jinja"
LONG = 60  # letters of a setting that are shown
SHARES = range(0, 101, 5)  # of ``quantiles_ms``


def render(manifest: Manifest, samples: list[Sample]) -> str:
    """Return the page as HTML. Whatever comes from files is escaped.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    environment = make_environment(Path(__file__).parent)
    environment.filters |= {"percent": _percent, "number": _number, "setting": _setting, "place": _place}
    return environment.get_template(TEMPLATE).render(
        manifest=manifest,
        graphs={name: entry for name, entry in manifest.files.items() if entry.inputs},
        macs_share=_share(manifest),
        parity=manifest.measured("parity"),
        accuracy=manifest.measured("accuracy"),
        latency=_boxes(manifest),
        conditions=_conditions(manifest),
        precisions=_precisions(manifest),
        ratio=_ratio(manifest),
        layers=_layers(manifest),
        curves=_image(plot_fitting(manifest)),
        maps=[make_map(sample, manifest.model.grid) for sample in samples],
    )


@dataclass(frozen=True)
class Box:
    """Latency of a file: what was measured, its backend, and places on the axis in percent of its length."""

    file: str
    result: dict[str, Any]
    backend: str
    low: float
    quarter: float
    middle: float
    upper: float
    high: float
    end: float


def _image(svg: str) -> str:
    """Return a plot as a data URI, so that its styles are not the page's; "" for none."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}" if svg else ""


def _boxes(manifest: Manifest) -> list[Box]:
    """Return one box a file, the dense baseline first; the axis begins at 0 ms and ends behind the slowest 1 %."""
    measured = dict(sorted(manifest.measured("latency").items(), key=lambda item: _is_reduced(manifest, item[0])))
    longest = 1.05 * max((result["p99_ms"] for result in measured.values()), default=1.0)

    def box(name: str, result: dict[str, Any]) -> Box:
        quantiles = result["quantiles_ms"]
        known = dict(zip(SHARES, quantiles, strict=True)) if quantiles else {}
        times = [known.get(share, result["p50_ms"]) for share in (5, 25)]
        times += [result["p50_ms"], known.get(75, result["p90_ms"]), result["p95_ms"], result["p99_ms"]]
        backend = ", ".join(f"{key} {result[key]}" for key in ("provider", "threads", "compute") if key in result)
        return Box(name, result, backend, *(100 * time / longest for time in times))

    return [box(name, result) for name, result in measured.items()]


def _conditions(manifest: Manifest) -> list[str]:
    """Return what the devices did while files were timed, and where operators ran, a line each."""
    lines: dict[str, None] = {}
    for name, result in manifest.measured("latency").items():
        if (joules := result.get("joules")) is not None:
            lines[f"{name}: {joules:.4g} joules an image"] = None
        if (placement := result.get("placement")) is not None:
            where = Placement(placement["nodes"], placement["fell_back"])
            lines[f"{name} on {result.get('device', 'its device')}; {where}"] = None
        if (read := result.get("conditions")) is not None:
            lines |= dict.fromkeys(Conditions(**{field.name: read[field.name] for field in fields(Conditions)}).lines)
    return list(lines)


def _precisions(manifest: Manifest) -> list[dict[str, Any]]:
    """Return one entry for each file that was measured: its own parity, accuracy, gate and latency."""
    kinds = ("parity", "accuracy", "quantization", "latency")
    measured = {kind: manifest.measured(kind) for kind in kinds}
    names = [name for name in manifest.files if any(name in results for results in measured.values())]
    return [
        {"file": name, "entry": manifest.files[name], **{kind: results.get(name) for kind, results in measured.items()}}
        for name in sorted(names, key=lambda name: (manifest.files[name].precision, _is_reduced(manifest, name)))
    ]


def _is_reduced(manifest: Manifest, name: str) -> bool:
    return name not in manifest.files or manifest.files[name].role != "dense"


def _ratio(manifest: Manifest) -> float | None:
    """Return the latency of ``model.onnx`` over the dense baseline's, where both were timed in one run."""
    measured = manifest.measured("latency")
    latency = measured.get("model.onnx", {})
    against = latency.get("against", "dense.onnx")
    return latency.get("ratio") if against in measured and not _is_reduced(manifest, against) else None


def _share(manifest: Manifest) -> float | None:
    dense = manifest.macs.get("dense", 0)
    return manifest.macs.get("backbone", 0) / dense if dense else None


def _layers(manifest: Manifest) -> list[dict[str, Any]]:
    """Return what each layer does, with its bars in percent of the largest."""
    tokens = max((layer.tokens_in for layer in manifest.layers), default=1)
    macs = max((layer.macs + layer.method_macs for layer in manifest.layers), default=1)
    return [
        {
            "entry": layer,
            "stay": 100 * layer.tokens_out / tokens,
            "leave": 100 * (layer.tokens_in - layer.tokens_out) / tokens,
            "macs": 100 * layer.macs / macs,
            "method": 100 * layer.method_macs / macs,
        }
        for layer in manifest.layers
    ]


def _place(result: dict[str, Any] | None) -> str:
    """Return on what and when a result was measured; "" where it does not say."""
    names = ("backend", "device", "processor", "date")
    if result is None or not all(isinstance(result.get(name), str) for name in names):
        return ""
    processor = f" ({result['processor']})" if result["device"] == "CPU" and result["processor"] else ""
    return f"{result['backend']} on {result['device']}{processor}, {result['date'][:10]}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _setting(value: object) -> str:
    text = str(value)
    return f"{len(value)} values" if isinstance(value, list) and len(text) > LONG else text


LINES = (0.25, 0.5, 0.75)  # quantiles of the amounts that were measured: one line for each
LEAST = 1e-12  # a distance that counts as none, as in ``gtp_models.fitting.curves``
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
