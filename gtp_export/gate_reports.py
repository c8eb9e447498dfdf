"""How quantised files look to people and programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gtp_export import console
from gtp_runtime.manifest import QuantizationInfo
from gtp_runtime.text import number, percent

if TYPE_CHECKING:
    from gtp_exporters import QuantizationFailedError
    from gtp_exporters.quantizing.gate import GateReport
    from gtp_exporters.quantizing.quantizer import LayerLoss


def gate_lines(reports: "Sequence[GateReport]") -> None:
    """How quantised files compare with their float32 twins, a line a file, and the limits that they missed."""
    for report in reports:
        drop = None if report.drop is None else f"{report.drop:.2f} points"
        overlap = min((layer.overlap for layer in report.layers), default=None)
        parts = [
            None if report.agreement is None else f"top-1 agrees on {percent(report.agreement)}",
            None if drop is None else f"top-1 {percent(report.top1, 2)}, {drop} ± {number(report.drop_se)} below fp32",
            None if report.divergence is None else f"divergence {report.divergence:.2g} nats",
            f"cosine {report.cosine:.4f}",
            None if overlap is None else f"token overlap {overlap:.3f} at least",
        ]
        console.out.print(
            f"{report.file} {'ok' if report.ok else 'FAILED'} on {report.images} images ({report.origin}): "
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


def describe_quantization(info: QuantizationInfo) -> str:
    """How a graph was quantised, in a line."""
    kept = f"; fp32: {', '.join(info.kept_fp32)}" if info.kept_fp32 else ""
    selection = ", those that decide which tokens leave as well" if info.selection else ""
    return (
        f"for {info.target}, {info.products} products in int8{selection}, {info.activations} activations, "
        f"{info.calibration} on {info.images} images{kept}"
    )
