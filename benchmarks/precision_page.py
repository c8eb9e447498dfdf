"""The page of precision.py: latency, accuracy, size, memory and start of every precision, from its JSON.

python benchmarks/precision_page.py docs/precision.json      # the page alone
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
HEAD = """# Precisions: latency, accuracy, size and memory

What do int8, fp16, bf16 and weights in few bits gain and cost, for the dense model and for GTP? *Ratio* is p50 latency
over that of the dense fp32 file on the same runtime, in turn in one process, one thread, batch 1. *Share* is how much
of the saved MACs arrives as saved time within a precision: 100 % is all. *Fastest runs*: the same from the 5 % quantile
of the runs instead of p50, which other work on the machine delays least. *Divergence* is the mean Kullback-Leibler
divergence of class probabilities in nats: from the dense fp32 file (what GTP and the precision cost together), and from
the same file in fp32 (what the precision alone costs). int8 is made by `gtp-export quantize`, in the form of the
runtime; *int8 and bf16* is that file with `--compute bf16`. Weights of DeiT are random, which does not affect time.
Made by `benchmarks/precision.py`; all figures are in [precision.json](precision.json).
"""
Rows = dict[str, dict[str, Any]]
Found = list[tuple[str, str, dict[str, Any]]]  # form, share of the MACs, and what was found of one case


def write(found: dict[str, Any], output: Path) -> None:
    """Write the page and a plot a model."""
    parts = [HEAD]
    for name, model in found.items():
        parts.append(f"\n## {model['title']}\n")
        latency = _all(model["rows"], "latency")
        if latency:
            picture = output.with_name(f"{output.name}-{name}.png")
            plot(latency, model["title"], picture)
            parts.append(f"\n![latency by MACs]({picture.name})\n")
        parts += _model(model["rows"])
    output.with_suffix(".md").write_text("".join(parts), encoding="utf-8")


def _all(rows: Rows, part: str) -> Found:
    return [(*name.split(), entry) for name, row in rows.items() for entry in row.get(part, [])]  # type: ignore[misc]


def _model(rows: Rows) -> Iterable[str]:
    latency, accuracy, footprint = (_all(rows, part) for part in ("latency", "accuracy", "footprint"))
    if latency:
        yield "\nLatency, ratio to dense fp32, and share of the saved MACs realised:\n\n"
        yield _table(
            ("form", "MACs", "runtime", "precision", "dense", "GTP", "share", "fastest runs: dense", "GTP", "share"),
            map(_latency, latency),
        )
    if accuracy:
        counts = " or ".join(str(count) for count in sorted({entry["images"] for _, _, entry in accuracy}))
        yield f"\nAccuracy on {counts} test images; changes in points, paired, with their standard error:\n\n"
        columns = ("file", "top-1 %", "against dense fp32", "divergence", "against its fp32 twin", "twin divergence")
        yield _table(("form", "MACs", "runtime", "precision", *columns), map(_accuracy, accuracy))
    if footprint:
        yield "\nFile size, and peak memory and cold start of a process that loads and runs the file:\n\n"
        columns = ("file", "MB", "peak MiB", "cold start ms")
        yield _table(("form", "MACs", "runtime", "precision", *columns), map(_footprint, footprint))


def _case(form: str, keep: str, entry: dict[str, Any]) -> tuple[str, ...]:
    return form, keep, NAMES[entry["backend"]], entry["precision"]


def _latency(found: tuple[str, str, dict[str, Any]]) -> tuple[str, ...]:
    entry = found[2]
    figures: list[str] = []
    for end in ("", "_fast"):
        figures += [f"{entry[f'dense{end}']:.3f}", f"{entry[f'gtp{end}']:.3f}", f"{entry[f'share{end}']:.0%}"]
    return (*_case(*found), *figures)


def _footprint(found: tuple[str, str, dict[str, Any]]) -> tuple[str, ...]:
    entry = found[2]
    figures = f"{entry['file_bytes'] / 1e6:.1f}", f"{entry['peak_mib']:.0f}", f"{entry['cold_start_ms']:.0f}"
    return (*_case(*found), entry["file"], *figures)


def _accuracy(found: tuple[str, str, dict[str, Any]]) -> tuple[str, ...]:
    entry = found[2]
    return (
        *_case(*found),
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


def plot(found: Found, title: str, path: Path) -> None:
    """Draw the latency of the first form by its MACs, a line a precision and runtime."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    form = found[0][0]
    figure, axes = pyplot.subplots(figsize=(6.4, 4.6))
    own = [entry for kind, _, entry in found if kind == form]
    for backend, precision in dict.fromkeys((entry["backend"], entry["precision"]) for entry in own):
        these = [entry for entry in own if (entry["backend"], entry["precision"]) == (backend, precision)]
        points = sorted([(1.0, these[0]["dense"]), *((entry["macs"], entry["gtp"]) for entry in these)])
        style = "-" if backend == "onnxruntime" else "--"
        axes.plot(*zip(*points, strict=True), style, marker="o", label=f"{NAMES[backend]} {precision}")
    axes.set(xlabel="MACs, share of the dense model's", ylabel="latency, share of dense fp32", ylim=(0, None))
    axes.set_title(f"{title}, {form} form", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[1]).with_suffix(""))
