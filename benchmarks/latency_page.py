"""The page and plots of latency.py: ratio to the dense model and overhead over the free drop, from its JSON.

python benchmarks/latency_page.py benchmarks/results/latency.json [--rounds 2]      # the page alone
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

TYPICAL = 8  # tokens a layer: the rows that the page shows for every method
NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO fp32", "openvino-bf16": "OpenVINO bf16"}
Entries = list[dict[str, Any]]
HEAD = """# Latency at equal MACs, batch {batch}

How fast are GTP and the baselines at equal MACs? Each figure is the median of {rounds} rounds. A round creates new
sessions and times all methods and the dense model in interleaved runs, in one process, on one thread. Weights are
random, which does not affect time. Made by `benchmarks/latency.py --batch {batch} --rounds {rounds}`; all figures are
in [{data}]({data}). To compare machines, use ratios, not milliseconds.

- *Ratio*: p50 latency relative to the dense model, which is exported with the same optimisations.
- *Share realised*: the share of the saved MACs that becomes saved time, (1 - ratio) / (1 - MACs). It may exceed 100 %:
  attention's softmax and the layer norms are no MACs, and shorter sequences fit the caches better. With few removed
  tokens both terms are small, so noise weighs more.
- *Overhead*: p50 latency relative to *drop*, which slices off the same number of tokens without selecting them; for
  *measured*, relative to *drop-measured*.
- *MACs*: relative to the dense model; those of *measured* differ slightly, since its token counts suit tiles.

*gtp* is the paper's form of GTP, *gtp-cls* the same with `--selection CLSAttnMax`, *prune* the same with
`--propagation None`, *measured* is `--preset measured`, and *drop-measured* is *drop* with its schedule. *tome* is
token merging, which merges at most half of a layer's tokens, so at the largest *num_prop* it removes fewer in the last
layers.

"""


def write(raw: Entries, output: Path, rounds: int) -> None:
    """Write OUTPUT.md."""
    pictures = dict.fromkeys(f"{output.name}-{entry['model']}-{entry['backend']}" for entry in raw)
    head = HEAD.format(batch=raw[0]["batch"], rounds=rounds, data=f"{output.name}.json")
    shown = "".join(f"![{name}]({name}.png)\n" for name in pictures)
    output.with_suffix(".md").write_text(head + "".join(_parts(raw)) + "\n## Plots\n\n" + shown, encoding="utf-8")


def _parts(raw: Entries) -> Iterable[str]:
    amounts = sorted({entry["num_prop"] for entry in raw})
    amount = TYPICAL if TYPICAL in amounts else amounts[0]
    chosen = [entry for entry in raw if entry["num_prop"] == amount and entry["method"] != "dense"]
    methods = list(dict.fromkeys(entry["method"] for entry in chosen))
    dense = {_place(entry): f"{entry['p50_ms']:.1f}" for entry in raw if _is(entry, "dense", amount)}
    yield f"## Ratio (share realised), num_prop {amount}\n\n"
    yield _table(chosen, "method", methods, _ratio, ("dense ms", dense))
    yield f"\n## Overhead, num_prop {amount}\n\n"
    yield _table(chosen, "method", methods, _overhead)
    if len(amounts) > 1:
        for method in (name for name in ("gtp", "measured") if name in methods):
            rows = [entry for entry in raw if entry["method"] == method]
            yield f"\n## Ratio (share realised) of {method} by num_prop\n\n"
            yield _table(rows, "num_prop", amounts, _ratio)


def _is(entry: dict[str, Any], method: str, amount: int) -> bool:
    return (entry["method"], entry["num_prop"]) == (method, amount)


def _place(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["model"], entry["backend"]


def _ratio(entry: dict[str, Any]) -> str:
    return f"{entry['ratio']:.3f} ({100 * entry['share']:.0f} %)"


def _overhead(entry: dict[str, Any]) -> str:
    return "-" if entry["overhead"] is None else f"{entry['overhead']:.3f}"


def _macs(entries: Entries, method: str) -> dict[tuple[str, str], str]:
    return {_place(entry): f"{entry['macs_ratio']:.3f}" for entry in entries if entry["method"] == method}


def _table(
    entries: Entries,
    key: str,
    columns: Sequence[Any],
    cell: Callable[[dict[str, Any]], str],
    extra: tuple[str, dict[tuple[str, str], str]] | None = None,
) -> str:
    """Return a row for each model and backend, a column for each value of ``key``."""
    first = [("MACs", _macs(entries, "drop")), ("of measured", _macs(entries, "measured"))] if key == "method" else []
    first += [extra] if extra else []
    head = ["model", "backend", *(name for name, _ in first), *map(str, columns)]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for place in dict.fromkeys(map(_place, entries)):
        found = {entry[key]: cell(entry) for entry in entries if _place(entry) == place}
        cells = [found.get(column, "-") for column in columns]
        lines.append(
            [place[0], NAMES.get(place[1], place[1]), *(values.get(place, "-") for _, values in first), *cells]
        )
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def plot(entries: Entries, title: str, path: Path) -> None:
    """Draw latency over MACs for the methods of one model and backend."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4.5))
    for method in dict.fromkeys(entry["method"] for entry in entries if entry["method"] != "dense"):
        points = sorted((entry["macs_ratio"], entry["ratio"]) for entry in entries if entry["method"] == method)
        axes.plot(*zip(*points, strict=True), marker="o", label=method)
    least = min(entry["macs_ratio"] for entry in entries)
    axes.plot([least, 1], [least, 1], color="0.6", linestyle="--", label="ideal")
    axes.set(xlabel="MACs, share of the dense model's", ylabel="latency, share of the dense model's", title=title)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the JSON that latency.py wrote")
    parser.add_argument("--rounds", type=int, default=2, help="that it was measured with (default: %(default)s)")
    arguments = parser.parse_args(given)
    write(json.loads(arguments.data.read_text("utf-8")), arguments.data.with_suffix(""), arguments.rounds)


if __name__ == "__main__":
    main()
