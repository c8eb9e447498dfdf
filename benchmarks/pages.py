"""The pages of run.py: words, tables and plots of what was measured. Each returns the text of its files by name."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from thresholds import Closeness
from words import ACCURACY, COMMANDS, LATENCY, NOTES, PRECISION, RESULTS, RESULTS_LIMITS, THRESHOLDS

from gtp_exporters.measuring.candidate import DENSE, PLAIN
from gtp_exporters.measuring.pages import DISTANCE, MACS, TOP1, Column, Measure, make_panel, markdown
from gtp_exporters.measuring.pages import LATENCY as RATIO
from gtp_exporters.measuring.result import Loss, Result, with_front
from gtp_exporters.report.drawing import draw

Files = dict[str, str]
Cell = Callable[[Result], str]
NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
TYPICAL = 8  # tokens a layer: the rows that the page of latency shows for every method
BUDGETS = (0.9, 0.75, 0.6, 0.5)  # of the dense model's latency


@dataclass(frozen=True)
class Measured:
    """What is known of a model: commands that measured it, results by part, and rows of thresholds."""

    name: str
    title: str = ""
    commands: list[str] = field(default_factory=list)
    parts: dict[str, list[Result]] = field(default_factory=dict)
    thresholds: list[dict[str, Any]] = field(default_factory=list)

    def part(self, name: str) -> list[Result]:
        """Return the results of a part."""
        return self.parts.get(name, [])


def pivot(heads: Sequence[str], entries: Iterable[tuple[Sequence[str], str, str]]) -> str:
    """Return a table of Markdown from entries of a row's first cells, the head of a column, and the cell there."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    columns: dict[str, None] = {}
    for row, column, cell in entries:
        rows.setdefault(tuple(row), {})[column] = cell
        columns[column] = None
    lines = [[*heads, *columns], ["---"] * 2 + ["---:"] * (len(heads) + len(columns) - 2)]
    lines += [[*row, *(cells.get(column, "-") for column in columns)] for row, cells in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(parts: Iterable[str], models: Sequence[Measured]) -> str:
    """Return the parts, and the commands that made them."""
    commands = "\n".join(command for model in models for command in model.commands)
    return "\n\n".join([*(part.strip("\n") for part in parts), COMMANDS.format(commands=commands).strip("\n")]) + "\n"


def runtime(result: Result) -> str:
    """Return how a result ran, in words."""
    return f"{NAMES.get(result.backend, result.backend)} {result.precision}"


def reduced(results: Iterable[Result]) -> list[Result]:
    """Return the results of all but the dense model."""
    return [result for result in results if result.name != DENSE]


def series_plot(title: str, panels: Sequence[tuple[str, Measure, Sequence[Result]]], across: Measure) -> str:
    """Return a plot of a row of panels with a line for each name."""
    names = list(dict.fromkeys(result.name for _, _, results in panels for result in results))
    drawn = [
        make_panel(
            label, measure, [[one for one in results if one.name == name] for name in names], results, (), across
        )
        for label, measure, results in panels
    ]
    return draw(title, names, [drawn], joined=set(names))


def filled(results: Iterable[Result]) -> list[Result]:
    """Return the results, drawn as filled marks."""
    return [replace(result, is_front=True) for result in results]


# Accuracy at equal MACs


def _error(share: float, images: int) -> float:
    return math.sqrt(share * (1 - share) / max(1, images - 1))


def _of_loss(cell: Callable[[Loss], tuple[float, float]], digits: int) -> Cell:
    def text(result: Result) -> str:
        assert result.loss is not None
        value, error = cell(result.loss)
        return f"{value:.{digits}f} ± {error:.{digits}f}"

    return text


def _change(loss: Loss) -> tuple[float, float]:
    return -100 * (loss.top1_drop or 0.0) + 0.0, 100 * (loss.top1_drop_se or 0.0)


def _agreement(loss: Loss) -> tuple[float, float]:
    share = loss.agreement or 0.0
    return 100 * share, 100 * _error(share, loss.images)


ACCURACY_COLUMNS = (
    Column("amount", lambda row: "-" if row.name == DENSE else str(row.budget["num_prop"])),
    Column("MACs", lambda row: f"{row.macs_ratio:.3f}"),
    Column("setting", lambda row: row.name),
    Column("divergence", _of_loss(lambda loss: (loss.distance, loss.distance_se or 0.0), 5)),
    Column("agreement %", _of_loss(_agreement, 2)),
    Column("top-1 %", _of_loss(lambda loss: (100 * (loss.top1 or 0.0), 100 * (loss.top1_se or 0.0)), 2)),
    Column("change", _of_loss(_change, 2)),
)


def accuracy(models: Sequence[Measured], name: str, batch: int) -> Files:  # noqa: ARG001
    """Return the page of one model's accuracy at equal MACs."""
    (model,) = models
    losses = model.part("losses")
    images = losses[0].loss.images if losses and losses[0].loss else 0
    parts, panels = [ACCURACY.format(title=model.title, images=images, plot=name)], []
    for group in dict.fromkeys(str(row.budget["group"]) for row in losses):
        own = [row for row in losses if row.budget["group"] == group]
        points = filled(reduced(own))
        panels += [(f"{group}: {measure.label}", measure, points) for measure in (DISTANCE, TOP1)]
        dense = [row for row in own if row.name == DENSE][: group == "methods"]
        rows = [*dense, *sorted(points, key=lambda row: row.budget["num_prop"])]
        parts += [f"## {group.capitalize()}", "\n".join(markdown(ACCURACY_COLUMNS, rows)), NOTES.get(group, "")]
    if model.thresholds:
        close = [Closeness(**row) for row in model.thresholds]
        parts.append(THRESHOLDS.format(amount=close[0].num_prop, chance=close[0].chance))
        parts.append("\n".join(Closeness.table(close)))
    plot = series_plot(f"{model.title}: accuracy at equal MACs", panels, MACS) if panels else ""
    return {f"{name}.svg": plot, f"{name}.md": page(filter(None, parts), models)}


# Latency at equal MACs


def latency(models: Sequence[Measured], name: str, batch: int) -> Files:
    """Return the page of latency at equal MACs, and a plot for each model."""
    every = [row for model in models for row in model.part("timings")]
    amounts = sorted({row.budget["num_prop"] for row in every})
    amount = TYPICAL if TYPICAL in amounts else amounts[0]
    parts = [LATENCY.format(batch=batch, data=f"{name}.jsonl"), f"## Ratio (share realised), num_prop {amount}"]
    parts += [_latency_table(models, amount, _ratio_and_share, True)]
    parts += [f"## Overhead, num_prop {amount}", _latency_table(models, amount, None, False)]
    for method in ("gtp", "measured") if len(amounts) > 1 else ():
        parts.append(f"## Ratio (share realised) of {method} by num_prop")
        parts.append(
            pivot(
                ("model", "runtime"),
                ((row_of, str(row.budget["num_prop"]), _ratio_and_share(row)) for row_of, row in _rows(models, method)),
            )
        )
    files = {f"{name}-{model.name}.svg": _latency_plot(model, batch) for model in models}
    shown = [f"![latency of {plot}]({plot})" for plot in files]
    return {**files, f"{name}.md": page([*parts, "## Plots", "\n".join(shown)], models)}


def _rows(models: Iterable[Measured], method: str) -> Iterator[tuple[tuple[str, str], Result]]:
    """Yield the results of a method, by amount, with a row's first cells."""
    for model in models:
        for row in model.part("timings"):
            if row.name == method:
                yield (model.name, runtime(row)), row


def _latency_table(models: Iterable[Measured], amount: float, cell: Cell | None, has_ms: bool) -> str:
    """Return a row for each model and runtime, a column for each method; without ``cell``, overhead over drop."""
    heads = ("model", "runtime", "MACs", "of measured", *(["dense ms"] if has_ms else []))
    entries = []
    for model in models:
        own = [row for row in model.part("timings") if row.budget["num_prop"] == amount]
        for how in dict.fromkeys(map(runtime, own)):
            rows = {row.name: row for row in own if runtime(row) == how}
            macs = [f"{rows[method].macs_ratio:.3f}" if method in rows else "-" for method in ("drop", "measured")]
            timing = rows[DENSE].timing
            times = [f"{timing.p50_ms:.1f}"] if has_ms and timing else []
            for row in reduced(rows.values()):
                text = cell(row) if cell else _overhead(row, rows)
                entries.append(((model.name, how, *macs, *times), row.name, text))
    return pivot(heads, entries)


def _overhead(row: Result, rows: dict[str, Result]) -> str:
    drop = rows.get("drop-measured" if row.name in ("measured", "drop-measured") else "drop")
    return "-" if drop is None else f"{row.ratio / drop.ratio:.3f}"


def _ratio_and_share(row: Result) -> str:
    return f"{row.ratio:.3f}" + ("" if row.share is None or row.name == DENSE else f" ({row.share:.0%})")


def _latency_plot(model: Measured, batch: int) -> str:
    runs: dict[str, list[Result]] = {}
    for row in filled(reduced(model.part("timings"))):
        runs.setdefault(runtime(row), []).append(row)
    return series_plot(f"{model.title}, batch {batch}", [(how, RATIO, rows) for how, rows in runs.items()], MACS)


# Accuracy against latency


def results(models: Sequence[Measured], name: str, batch: int) -> Files:  # noqa: ARG001
    """Return the page of accuracy against latency, and a plot for each model."""
    parts, files = [RESULTS.format(data=f"{name}.jsonl")], {}
    for model in models:
        runs = with_losses(model)
        if not runs:
            continue
        loss = next(row.loss for rows in runs.values() for row in rows)
        assert loss is not None
        plot = f"{name}-{model.name}.svg"
        panels = [(how, DISTANCE, with_front(rows)) for how, rows in runs.items()]
        files[plot] = series_plot(model.title, panels, RATIO)
        parts.append(f"## {model.title}")
        parts.append(f"{loss.images} images, dense top-1 {100 * (loss.dense_top1 or 0.0):.2f} %.")
        parts.append(f"![divergence against latency]({plot})")
        parts.append("Divergence (top-1, %) at a share of the dense model's latency:")
        parts.append(_at_latencies(runs))
    return {**files, f"{name}.md": page([*parts, RESULTS_LIMITS], models)}


def with_losses(model: Measured) -> dict[str, list[Result]]:
    """Return the timed results of each runtime, with the loss that eager PyTorch has of the same settings."""
    losses = {(row.name, row.budget["keep"]): row.loss for row in model.part("losses")}
    runs: dict[str, list[Result]] = {}
    for row in reduced(model.part("timings")):
        loss = losses.get((row.name, row.budget["keep"]))
        if loss is not None:
            runs.setdefault(runtime(row), []).append(replace(row, loss=loss))
    return runs


def at_latency(rows: Iterable[Result], budget: float) -> tuple[float, float] | None:
    """Return divergence and top-1 in percent of one method at a latency, interpolated; None outside of its points."""
    points = sorted((row.ratio, row.distance, 100 * ((row.loss and row.loss.top1) or 0.0)) for row in rows)
    for (low, *slower), (high, *faster) in pairwise(points):
        if low <= budget <= high:
            share = (budget - low) / max(high - low, 1e-9)
            logs = [math.log(max(value, 1e-9)) for value in (slower[0], faster[0])]
            return math.exp(logs[0] + share * (logs[1] - logs[0])), slower[1] + share * (faster[1] - slower[1])
    return None


def _at_latencies(runs: dict[str, list[Result]]) -> str:
    entries = []
    for how, rows in runs.items():
        methods = dict.fromkeys(row.name for row in rows)
        for budget in BUDGETS:
            points = {method: at_latency([row for row in rows if row.name == method], budget) for method in methods}
            if any(points.values()):
                texts = {
                    method: f"{point[0]:.4f} ({point[1]:.1f})" if point else "-" for method, point in points.items()
                }
                entries += [((how, f"{budget:g}"), method, text) for method, text in texts.items()]
    return pivot(("runtime", "latency"), entries)


# Precisions


def precision(models: Sequence[Measured], name: str, batch: int) -> Files:  # noqa: ARG001
    """Return the page of precisions, and a plot for each model whose latency was measured."""
    parts, files = [PRECISION.format(data=f"{name}.jsonl")], {}
    for model in models:
        parts.append(f"## {model.title}")
        if model.part("timings"):
            plot = f"{name}-{model.name}.svg"
            files[plot] = _precision_plot(model)
            parts += [*_precision_latency(model.part("timings")), f"![latency by MACs]({plot})"]
        parts += _precision_accuracy(model.part("accuracies"), reduced_precision(model.part("twins")))
        if costs := model.part("costs"):
            parts.append(
                "Size of the file in MB, and peak memory in MiB and cold start in ms of a process that runs it:"
            )
            parts.append(by_precision(costs, _cost))
    return {**files, f"{name}.md": page(parts, models)}


def by_precision(rows: Sequence[Result], cell: Cell) -> str:
    """Return a table with a row for each runtime and precision, and a column for each file."""
    ordered = sorted(rows, key=lambda row: (row.name, -row.budget["keep"]))
    columns = list(dict.fromkeys(map(_file, ordered)))
    cells = {(row.backend, row.precision, _file(row)): cell(row) for row in rows}
    runs = dict.fromkeys((row.backend, row.precision) for row in rows)
    return pivot(
        ("runtime", "precision"),
        (
            ((NAMES[backend], precision), column, cells.get((backend, precision, column), ""))
            for backend, precision in runs
            for column in columns
        ),
    )


def reduced_precision(rows: Iterable[Result]) -> list[Result]:
    """Return the results of all but float32."""
    return [row for row in rows if row.precision != PLAIN]


def _file(row: Result) -> str:
    return DENSE if row.name == DENSE else f"{row.name} {row.budget['keep']:g}"


def _is_first(row: Result) -> bool:
    return (row.precision, row.name) == (PLAIN, DENSE)


def _precision_latency(rows: Sequence[Result]) -> Iterator[str]:
    first = {row.backend: row.timing.p50_ms for row in rows if _is_first(row) and row.timing}
    times = " and ".join(f"{ms:.1f} ms on {NAMES[backend]}" for backend, ms in first.items())
    yield f"Latency, relative to dense fp32 ({times}), and the share realised:"
    yield by_precision(rows, _ratio_and_share)


def _precision_accuracy(rows: Sequence[Result], twins: Sequence[Result]) -> Iterator[str]:
    if not rows:
        return
    change = _of_signed(_change)
    images = " or ".join(f"{count:,}" for count in sorted({row.loss.images for row in rows if row.loss}))
    yield f"Top-1 on {images} test images, change against dense fp32, in points:"
    yield by_precision(
        rows, lambda row: f"{100 * ((row.loss and row.loss.top1) or 0.0):.2f} %" if _is_first(row) else change(row)
    )
    yield "Top-1, change against the fp32 twin, in points: what the precision alone costs:"
    yield by_precision(twins, change)
    yield "Divergence from dense fp32, millinats:"
    yield by_precision(rows, lambda row: "0" if _is_first(row) else f"{1e3 * row.distance:.2g}")
    yield "Divergence from the fp32 twin, millinats, and top-1 agreement with it:"
    yield by_precision(
        twins, lambda row: f"{1e3 * row.distance:.2g} ({100 * ((row.loss and row.loss.agreement) or 0.0):.1f} %)"
    )


def _of_signed(cell: Callable[[Loss], tuple[float, float]]) -> Cell:
    def text(result: Result) -> str:
        assert result.loss is not None
        value, error = cell(result.loss)
        return f"{value:+.2f} ± {error:.2f}"

    return text


def _cost(row: Result) -> str:
    assert row.cost is not None
    peak, start = ("-" if value is None else f"{value:.0f}" for value in (row.cost.peak_mib, row.cost.cold_start_ms))
    return f"{row.cost.file_bytes / 1e6:.1f}, {peak}, {start}"


def _precision_plot(model: Measured) -> str:
    """Return latency over MACs: a line for each precision; the paper's form is hollow."""
    runs: dict[str, list[Result]] = {}
    for row in model.part("timings"):
        marked = replace(row, is_front=row.name != "paper", name=row.precision)
        runs.setdefault(NAMES.get(row.backend, row.backend), []).append(marked)
    title = f"{model.title} (hollow: the paper's form)"
    return series_plot(title, [(how, RATIO, rows) for how, rows in runs.items()], MACS)


PAGES = {"accuracy": accuracy, "latency": latency, "results": results, "precision": precision}
