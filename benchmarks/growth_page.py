"""The page of growth.py: latency, export time and memory by tokens and batch size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAD = """# Latency, export time and memory by tokens and batch size

How do latency, export time and memory grow with the number of tokens and with the batch size? Made by
`benchmarks/growth.py` on a machine with {cores} cores ({machine}). Weights are random, which does not affect time or
memory. GTP is `--preset {preset} --num-prop N`, and *N* is proportional to the number of tokens, so the same share of
them is removed.{depth}

![plot]({plot}.png)
"""
LATENCY = """
## Latency

{model} on ONNX Runtime, one thread: milliseconds per image (p50 of *runs*). Runs of GTP and of the dense baseline are
interleaved. *Ratio* is GTP over dense. *Share realised* is the share of the saved MACs that becomes saved time.

"""
EXPORTS = """
## The exporter

`gtp-export export MODEL --weights random --no-check`, with the preset, in a new process: the whole command, with
imports and both graphs. *CPU seconds* exclude the time of other processes. *Peak* is the largest resident memory.

"""


@dataclass(frozen=True)
class Export:
    """What one export took.

    Attributes:
        model: the recipe.
        tokens: image tokens.
        batch: images a run.
        num_prop: tokens removed in each layer, or whose MACs the preset's schedule spends.
        seconds: of the whole command, imports included.
        cpu_seconds: likewise, that its threads worked.
        peak_gb: largest resident memory of its process, in 10^9 bytes.
        file_mb: both graphs, in 10^6 bytes.
    """

    model: str
    tokens: int
    batch: int
    num_prop: int
    seconds: float
    cpu_seconds: float
    peak_gb: float
    file_mb: float


def write(found: dict[str, Any], output: Path) -> None:
    depth = f" **Only {found['depth']} layers: a trial.**" if found["depth"] else ""
    texts = {"preset": found["preset"], "machine": found["machine"], "cores": found["cores"], "plot": output.name}
    exports: list[tuple[str, ...]] = [
        ("model", "image tokens", "batch", "num_prop", "seconds", "CPU seconds", "peak GB", "files MB")
    ]
    exports += [export_row(Export(**entry)) for entry in found["exports"]]
    text = HEAD.format(**texts, depth=depth) + latency_part(found) + EXPORTS + table(exports)
    output.with_suffix(".md").write_text(text, encoding="utf-8")
    plot(found, output.with_suffix(".png"))


def latency_part(found: dict[str, Any]) -> str:
    if not found["latency"]:
        return "\nLatency was not measured in this run.\n"
    columns = ("image tokens", "batch", "dense ms", "GTP ms", "ratio", "MACs", "share realised", "runs")
    twins = zip(found["latency"][::2], found["latency"][1::2], strict=True)
    lines: list[tuple[str, ...]] = [columns, *(latency_row(dense, gtp) for dense, gtp in twins)]
    return LATENCY.format(model=found["model"]) + table(lines)


def latency_row(dense: dict[str, Any], gtp: dict[str, Any]) -> tuple[str, ...]:
    times = [f"{entry['p50_ms'] / entry['batch']:.1f}" for entry in (dense, gtp)]
    figures = [f"{gtp[name]:.3f}" for name in ("ratio", "macs_ratio")]
    return (str(gtp["tokens"]), str(gtp["batch"]), *times, *figures, f"{gtp['share']:.2f}", str(gtp["runs"]))


def export_row(entry: Export) -> tuple[str, ...]:
    counts = (str(entry.tokens), str(entry.batch), str(entry.num_prop))
    taken = (f"{entry.seconds:.0f}", f"{entry.cpu_seconds:.0f}")
    return (entry.model, *counts, *taken, f"{entry.peak_gb:.2f}", f"{entry.file_mb:.0f}")


def table(lines: list[tuple[str, ...]]) -> str:
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (lines[0], ("---",) * len(lines[0]), *lines[1:]))


def plot(found: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.2))
    for batch in dict.fromkeys(entry["batch"] for entry in found["exports"]):
        for name, kind, style in (("dense.onnx", "dense", "--"), ("model.onnx", "GTP", "-")):
            points = [entry for entry in found["latency"] if (entry["batch"], entry["file"]) == (batch, name)]
            times = [entry["p50_ms"] / batch for entry in points]
            left.plot([entry["tokens"] for entry in points], times, style, marker="o", label=f"{kind}, batch {batch}")
        exports = [entry for entry in found["exports"] if (entry["batch"], entry["model"]) == (batch, found["model"])]
        peaks = [entry["peak_gb"] for entry in exports]
        right.plot([entry["tokens"] for entry in exports], peaks, marker="o", label=f"batch {batch}")
    left.set(xlabel="image tokens", ylabel="ms an image", ylim=(0, None), title=f"latency, {found['model']}")
    right.set(xlabel="image tokens", ylabel="peak GB", ylim=(0, None), title=f"exporter, {found['model']}")
    left.legend()
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
