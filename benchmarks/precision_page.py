"""The page of precision.py: latency, accuracy, size, memory and start of every precision, from its JSON.

python benchmarks/precision_page.py benchmarks/results/precision.json      # the page alone
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
HEAD = """# Precisions compared: latency, accuracy, size and memory

How do int8, fp16, bf16 and weights in few bits change the dense model and GTP? Made by `benchmarks/precision.py`; all
figures are in [precision.json](precision.json). A model has tables only for what was measured on it.

- Each column after *precision* is a file: the dense model, or GTP with the given share of the dense model's MACs.
  *measured* is `--preset measured`, *paper* is `--preset paper`. An empty cell was not measured.
- *Latency* is the p50 latency relative to that of the dense fp32 file on the same runtime, one thread, batch 1. The
  files of a row are timed in turn with the dense fp32 file, in one process. In brackets is the *share realised*: the
  share of the saved MACs that becomes saved time, relative to the dense file of the same precision. Weights of DeiT are
  random, which does not affect time.
- *Top-1* is given in percent for dense fp32. The other cells are changes in percentage points, with the standard error
  of the paired differences.
- *Divergence* is the mean Kullback-Leibler divergence of the class probabilities of the fp32 file to those of the file,
  in millinats (0.001 nats). *Agreement* is the share of images for which both files have the same top-1 class.
- The *fp32 twin* of a file is the same model with the same token reduction in fp32. Differences from it show what the
  precision alone costs.
- *int8* is a file that `gtp-export quantize` makes in the form of the runtime
  ([precision.md](../../docs/precision.md)). *int8 and bf16* is this file run with `--compute bf16`, and *bf16* is the
  fp32 file run with it. ONNX Runtime has no bf16 on CPUs. OpenVINO reads fp16 files, and computes them in fp32 on CPUs
  without fp16.

"""
Entry = dict[str, Any]
Entries = list[Entry]
Cell = Callable[[Entry], str]


def write(found: dict[str, Any], output: Path) -> None:
    """Write the page, and a plot for each model and runtime with latencies."""
    parts = [HEAD]
    for name, model in found.items():
        parts.append(f"## {model['title']}\n\n")
        parts += _latency(model, f"{output.name}-{name}", output.parent)
        parts += _accuracy(model.get("accuracy", []))
        parts += _footprint(model.get("footprint", []))
    output.with_suffix(".md").write_text("".join(parts).rstrip() + "\n", encoding="utf-8")


def _latency(model: dict[str, Any], name: str, place: Path) -> Iterator[str]:
    entries = model.get("latency", [])
    if not entries:
        return
    first = {entry["backend"]: entry["ms"] for entry in entries if _is_first(entry)}
    times = " and ".join(f"{ms:.1f} ms on {NAMES[backend]}" for backend, ms in first.items())
    yield f"Latency, relative to dense fp32 ({times}), and the share realised:\n\n"
    yield grid(entries, _ratio)
    for backend in first:
        picture = f"{name}-{backend}.png"
        plot([entry for entry in entries if entry["backend"] == backend], model["title"], place / picture)
        yield f"![latency by MACs on {NAMES[backend]}]({picture})\n"
    yield "\n"


def _accuracy(entries: Entries) -> Iterator[str]:
    if not entries:
        return
    images = " or ".join(f"{count:,}" for count in sorted({entry["images"] for entry in entries}))
    yield f"Top-1 on {images} test images, change against dense fp32, in points:\n\n"
    yield grid(entries, lambda entry: f"{entry['top1']:.2f} %" if _is_first(entry) else _with_error(entry, "change"))
    yield "Top-1, change against the fp32 twin, in points: what the precision alone costs:\n\n"
    yield grid(_reduced(entries), lambda entry: _with_error(entry, "twin_change"))
    yield "Divergence from dense fp32, millinats:\n\n"
    yield grid(entries, lambda entry: "0" if _is_first(entry) else f"{1e3 * entry['divergence']:.2g}")
    yield "Divergence from the fp32 twin, millinats, and top-1 agreement with it:\n\n"
    yield grid(
        _reduced(entries), lambda entry: f"{1e3 * entry['twin_divergence']:.2g} ({entry['twin_agreement']:.1f} %)"
    )


def _footprint(entries: Entries) -> Iterator[str]:
    if entries:
        yield "Size of the file in MB, and peak memory in MiB and cold start in ms of a process that runs it:\n\n"
        yield grid(
            entries,
            lambda entry: f"{entry['file_bytes'] / 1e6:.1f}, {entry['peak_mib']:.0f}, {entry['cold_start_ms']:.0f}",
        )


def _is_first(entry: Entry) -> bool:
    return (entry["precision"], entry["form"]) == ("fp32", "dense")


def _reduced(entries: Entries) -> Entries:
    return [entry for entry in entries if entry["precision"] != "fp32"]


def _ratio(entry: Entry) -> str:
    return f"{entry['ratio']:.3f}" + ("" if entry["share"] is None else f" ({entry['share']:.0%})")


def _with_error(entry: Entry, kind: str) -> str:
    return f"{entry[kind]:+.2f} ± {entry[f'{kind}_error']:.2f}"


def grid(entries: Entries, cell: Cell) -> str:
    """Return a table with a row for each runtime and precision, and a column for each file."""
    files = sorted({_file(entry) for entry in entries}, key=lambda file: (file[0], -float(file[1])))
    names = ["dense" if form == "dense" else f"{form} {keep}" for form, keep in files]
    lines = [["runtime", "precision", *names], ["---", "---", *["---:"] * len(files)]]
    for backend, precision in dict.fromkeys((entry["backend"], entry["precision"]) for entry in entries):
        own = {_file(entry): cell(entry) for entry in entries if _case(entry) == (backend, precision)}
        lines.append([NAMES[backend], precision, *(own.get(file, "") for file in files)])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines) + "\n"


def _file(entry: Entry) -> tuple[str, str]:
    return entry["form"], entry["keep"]


def _case(entry: Entry) -> tuple[str, str]:
    return entry["backend"], entry["precision"]


def plot(entries: Entries, title: str, path: Path) -> None:
    """Draw latency over MACs on one runtime: a line for each precision, the paper's form hollow."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4.5))
    for precision in dict.fromkeys(entry["precision"] for entry in entries):
        own = [entry for entry in entries if entry["precision"] == precision]
        points = sorted((entry["macs"], entry["ratio"]) for entry in own if entry["form"] != "paper")
        (line,) = axes.plot(*zip(*points, strict=True), marker="o", label=precision)
        for entry in (entry for entry in own if entry["form"] == "paper"):
            axes.plot(entry["macs"], entry["ratio"], marker="o", markerfacecolor="none", color=line.get_color())
    axes.set(xlabel="MACs, share of the dense model's", ylabel="latency, share of dense fp32", ylim=(0, None))
    axes.set_title(f"{title} on {NAMES[entries[0]['backend']]} (hollow: the paper's form)", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text("utf-8")), Path(sys.argv[1]).with_suffix(""))
