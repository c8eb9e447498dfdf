"""The page of precision.py: latency, accuracy, size and memory of every precision, from its JSON."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
HEAD = """# Precisions: latency, accuracy, size and memory

What do int8, fp16 and bf16 gain and cost, for the dense model and for GTP? *Ratio* is p50 latency over that of the
dense fp32 file on the same runtime, in turn in one process, one thread, batch 1. *Share* is how much of the saved MACs
arrives as saved time within a precision: 1 is all. *Divergence* is the mean Kullback-Leibler divergence of class
probabilities in nats: from the dense fp32 file (what GTP and the precision cost together), and from the same file in
fp32 (what the precision alone costs). int8 is made by `gtp-export quantize`, in the form of the runtime. Made by
`benchmarks/precision.py`; all figures are in [precision.json](precision.json).
"""


def write(found: dict[str, Any], output: Path) -> None:
    """Write the page and a plot a model."""
    parts = [HEAD]
    for name, model in found.items():
        picture = output.with_name(f"{output.name}-{name}.png")
        plot(model["rows"], model["title"], picture)
        parts += [f"\n## {model['title']}\n\n![latency by MACs]({picture.name})\n", *_model(model["rows"])]
    output.with_suffix(".md").write_text("".join(parts), encoding="utf-8")


def _model(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    yield "\nLatency, ratio to dense fp32, and share of the saved MACs realised:\n\n"
    yield _table(
        ("form", "MACs", "runtime", "precision", "dense", "GTP", "share"),
        [
            (*_case(row, entry), f"{entry['dense']:.3f}", f"{entry['gtp']:.3f}", f"{entry['share']:.0%}")
            for row in rows
            for entry in row["latency"]
        ],
    )
    if any(row["accuracy"] for row in rows):
        yield "\nAccuracy on test images; changes in points, paired, with their standard error:\n\n"
        columns = ("file", "top-1 %", "against dense fp32", "divergence", "against its fp32 twin", "twin divergence")
        yield _table(
            ("form", "MACs", "runtime", "precision", *columns),
            [(*_case(row, entry), *_accuracy(entry)) for row in rows for entry in row["accuracy"]],
        )
    yield "\nFile size, and peak memory of a process that loads and runs the file:\n\n"
    yield _table(
        ("form", "MACs", "runtime", "precision", "file", "MB", "peak MiB"),
        [
            (*_case(row, entry), entry["file"], f"{entry['mb']:.1f}", f"{entry['peak_mib']:.0f}")
            for row in rows
            for entry in row["memory"]
        ],
    )


def _case(row: dict[str, Any], entry: dict[str, Any]) -> tuple[str, ...]:
    return row["form"], f"{row['keep']:g}", NAMES[entry["backend"]], entry["precision"]


def _accuracy(entry: dict[str, Any]) -> tuple[str, ...]:
    return (
        entry["file"],
        f"{entry['top1']:.2f}",
        f"{entry['change']:+.2f} ± {entry['change_error']:.2f}",
        f"{entry['divergence']:.2g}",
        f"{entry['twin_change']:+.2f} ± {entry['twin_change_error']:.2f}",
        f"{entry['twin_divergence']:.2g}",
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def plot(rows: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draw the latency of the measured form by its MACs, a line a precision and runtime."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    form = rows[0]["form"]
    figure, axes = pyplot.subplots(figsize=(6, 4.2))
    chosen = [(row["keep"], entry) for row in rows if row["form"] == form for entry in row["latency"]]
    for case in dict.fromkeys((entry["backend"], entry["precision"]) for _, entry in chosen):
        own = [(keep, entry) for keep, entry in chosen if (entry["backend"], entry["precision"]) == case]
        points = sorted([(1.0, own[0][1]["dense"]), *((keep, entry["gtp"]) for keep, entry in own)])
        axes.plot(*zip(*points, strict=True), marker="o", label=f"{NAMES[case[0]]} {case[1]}")
    axes.set(xlabel="MACs, share of the dense model's", ylabel="latency, share of dense fp32")
    axes.set_title(f"{title}, {form} form", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
