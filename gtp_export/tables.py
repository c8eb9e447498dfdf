"""How results look: tables and lines for people, documents for programs. Commands that show the same share them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gtp_export import console
from gtp_runtime.accuracy import metric_lines
from gtp_runtime.images.class_folders import folder_words
from gtp_runtime.messages import number, percent
from gtp_runtime.parity import details, headline

if TYPE_CHECKING:
    from gtp_exporters import QuantizationFailedError
    from gtp_exporters.measuring.gate import GateReport
    from gtp_exporters.quantizing.sensitivity import LayerLoss
    from gtp_runtime import Accuracy, Latency, Parity
    from gtp_runtime.manifest import EngineInfo, FittingInfo, QuantizationInfo


SCATTERED = 0.5  # coefficient of variation above which a share of the saved time means nothing


def latency_table(results: "Sequence[Latency]", title: str) -> None:
    """Show one row per file: ``share realised`` is that of the saved MACs, ``overhead`` is relative to drop."""
    columns: tuple[str, ...] = (
        "file",
        "p50 ms",
        "p90",
        "p95",
        "p99",
        "mean",
        "cv",
        "images/s",
        "MACs",
        "ratio",
        "share realised",
    )
    if any(result.overhead is not None for result in results):
        columns = (*columns, "overhead")
    if len(results) == 1:  # there is no other file that MACs and times could be a share of
        columns = columns[: columns.index("MACs")]
    scattered = [result.file for result in results if result.cv > SCATTERED]
    rows = [_latency_row(result, bool(scattered) and result.share is not None) for result in results]
    console.table(title, columns, [row[: len(columns)] for row in rows])
    if scattered:
        console.note(
            f"note: the times of {', '.join(scattered)} scatter (cv above {percent(SCATTERED, 0)}), so their "
            "ratio says little: measure again on a quiet machine, or with more --seconds"
        )
    staged = [(result.file, *map(number, result.stages.values())) for result in results if result.stages]
    if staged:
        console.table(
            "stages, median ms, by trtexec's definitions", ("file", "h2d", "compute", "d2h", "enqueue"), staged
        )


def conditions_lines(results: "Sequence[Latency]") -> None:
    """Show what the device did while files were timed in one run, and the energy of an image where it was counted."""
    conditions = next((result.conditions for result in results if result.conditions is not None), None)
    if energy := [f"{result.file} {number(result.joules, 4)}" for result in results if result.joules is not None]:
        console.out.print(f"joules per image: {', '.join(energy)}", markup=False)
    for text in [] if conditions is None else conditions.lines:
        console.note(text)


def footprint_table(results: "Sequence[Latency]") -> None:
    """Show size, peak memory and cold start of each file, where they were measured."""
    rows = [(result.file, result.footprint) for result in results if result.footprint is not None]
    if rows:
        starts = max(cost.starts for _, cost in rows)
        console.table(
            f"in a process of its own, median of {starts}; cold start is from its start to its first answer",
            ("file", "MB", "peak memory MiB", "cold start ms"),
            [
                (file, number(cost.file_bytes / 1e6), number(cost.peak_mib, 0), number(cost.cold_start_ms, 0))
                for file, cost in rows
            ],
        )


def _latency_row(result: "Latency", is_noise: bool) -> tuple[str, ...]:
    times = (result.p50_ms, result.p90_ms, result.p95_ms, result.p99_ms, result.mean_ms)
    return (
        result.file,
        *(number(value) for value in times),
        percent(result.cv),
        number(result.throughput, 1),
        number(result.macs_ratio, 3),
        number(result.ratio, 3),
        "noise" if is_noise else percent(result.share, 0),
        number(result.overhead, 3),
    )


def parity_lines(parity: "Parity", images: str) -> None:
    """Show a parity report in a few lines, the failed gates last."""
    console.out.print(headline(parity, images), style="" if parity.ok else "red", markup=False)
    for text in details(parity):
        console.out.print(text, markup=False)
    for problem in parity.problems:
        console.out.print(f"  gate: {problem}", style="red", markup=False)


def accuracy_lines(accuracy: "Accuracy", folder: str) -> None:
    """Show accuracy on a folder compared with the dense baseline, with standard errors where known."""
    if accuracy.top1 is None and accuracy.measures:
        console.out.print(f"measured on {accuracy.images} images of {folder}", markup=False)
    else:
        console.table(f"accuracy on {accuracy.images} images of {folder}", *_accuracy_table(accuracy))
    if words := folder_words(accuracy.class_order, accuracy.class_folders):
        console.out.print(words, markup=False)
    if accuracy.top1_drop is not None:
        drop = _with_error(accuracy.top1_drop, accuracy.top1_drop_se)
        console.out.print(f"{accuracy.quality} is {drop} below dense, paired on the same images", markup=False)
    if accuracy.divergence is not None:
        error = "" if accuracy.divergence_se is None else f" ± {accuracy.divergence_se:.2g}"
        console.out.print(
            f"agrees with dense on {percent(accuracy.agreement, 2)} of the images; mean divergence from dense "
            f"{accuracy.divergence:.4g}{error} nats",
            markup=False,
        )
    for line in metric_lines(accuracy):
        console.out.print(line, markup=False)


def _accuracy_table(accuracy: "Accuracy") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return heads and rows: the classes of the model and of dense."""
    rows: list[tuple[str, ...]] = [
        ("model", _with_error(accuracy.top1, accuracy.top1_se), percent(accuracy.top5, 2)),
        *(
            [("dense", percent(accuracy.dense_top1, 2), percent(accuracy.dense_top5, 2))]
            if accuracy.dense_top1 is not None
            else []
        ),
    ]
    heads = ("", accuracy.quality or "top-1", "top-5")
    return (heads, rows) if accuracy.top5 is not None else (heads[:2], [row[:2] for row in rows])


def _with_error(share: "float | None", error: "float | None") -> str:
    return percent(share, 2) + ("" if error is None else f" ± {100 * error:.2f}")


def describe_engine(info: "EngineInfo") -> str:
    """Where and for what an engine was built, in a line."""
    built_for = ", ".join(info.targets) or info.gpu or "Ampere and later"
    took = f"built in {info.build_seconds:.1f} s"
    return f"{info.flavor} {info.version} for {built_for}, {info.layers} network layers, {took}"


def gate_lines(reports: "Sequence[GateReport]") -> None:
    """How quantised files compare with their float32 twins, a line a file, and the limits that they missed."""
    for report in reports:
        drop = None if report.drop is None else f"{report.drop:.2f} ± {number(report.drop_se)} points below fp32"
        overlap = min((layer.overlap for layer in report.layers), default=None)
        parts = [
            None if report.flips is None else f"top-1 agrees on {percent(report.loss.agreement)}",
            None if drop is None else f"top-1 {percent(report.loss.top1, 2)}, {drop}",
            None if report.divergence is None else f"divergence {report.divergence:.2g} nats",
            f"cosine {report.cosine:.4f}",
            None if overlap is None else f"token overlap {overlap:.3f} at least",
        ]
        console.out.print(
            f"{report.file} {'ok' if report.ok else 'FAILED'} on {report.loss.images} images ({report.origin}): "
            f"{', '.join(part for part in parts if part)}",
            style="" if report.ok else "red",
            markup=False,
        )
        for problem in report.problems:
            console.out.print(f"  gate: {problem}", style="red", markup=False)


def gate_document(reports: "Sequence[GateReport]", losses: "Sequence[LayerLoss]") -> dict[str, Any]:
    """How quantised files compare with their float32 twins, as plain values."""
    return {
        "ok": all(report.ok for report in reports),
        "files": [report.to_dict() for report in reports],
        "losses": [asdict(found) for found in losses],
    }


def gate_failure(error: "QuantizationFailedError", json: bool) -> None:
    """What a gate that failed measured, and the layers that lose most."""
    if json:
        console.emit(gate_document(error.reports, error.losses))
    else:
        gate_lines(error.reports)
        rows = [(found.layer, f"{found.loss:.2g}") for found in error.losses[:10]]
        console.table("layers that lose most alone", ("layer", "divergence"), rows)
    console.err.print(f"error: {error}", style="red", markup=False)


def describe_quantization(info: "QuantizationInfo") -> str:
    """How a graph was quantised, in a line."""
    kept = f"; fp32: {', '.join(info.kept_fp32)}" if info.kept_fp32 else ""
    selection = ", those that decide which tokens leave as well" if info.selection else ""
    bits = "" if info.weight_bits == 8 else f"; weights in {info.weight_bits} bits"
    return (
        f"for {info.target}, {info.products} products in int8{selection}, {info.activations} activations, "
        f"{info.calibration} on {info.images} images{bits}{kept}"
    )


def describe_fitting(info: "FittingInfo") -> str:
    """On what a schedule was fitted, where tokens leave, and how far it is from the dense model, in a line."""
    where = ", ".join(f"{amount} in layer {layer}" for layer, amount in enumerate(info.num_prop) if amount)
    budget = ", ".join(f"{name} {value:g}" for name, value in info.budget.items())
    usual = "" if info.usual_distance is None else f", {info.usual} {info.usual_distance:.3g}"
    of = "time" if "latency" in info.budget else "MACs"
    measure = info.measure.replace("_", " ")
    return (
        f"schedule {info.schedule} ({budget}) on {info.count} images ({info.images}), seed {info.seed}: "
        f"{where or 'none'}; {info.cost:.1%} of the dense model's {of}, {measure} {info.distance:.3g} ± "
        f"{info.error:.2g} there{usual}"
    )


def curves_table(info: "FittingInfo") -> None:
    """Show the distance where tokens leave in one layer alone, a row for each layer."""
    rows = [
        (
            str(curve.layer),
            str(info.num_prop[curve.layer]) if curve.layer < len(info.num_prop) else "-",
            ", ".join(f"{amount}: {value:.2g}" for amount, value in zip(curve.amounts, curve.distances, strict=False)),
        )
        for curve in info.curves
    ]
    title = f"{info.measure.replace('_', ' ')} where tokens leave in one layer alone"
    console.table(title, ("layer", "leave", "tokens: distance"), rows)
