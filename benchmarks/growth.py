"""How cost grows with tokens and batch: latency of GTP and of its dense baseline, the exporter's time and peak memory.

    python benchmarks/growth.py [--model deit_s] [--sizes 224,448,512] [--num-prop 8,32,42] [--batches 1,8,32]
                                [--preset measured] [--exports deit_b] [--depth 2] [--output docs/growth]

Exports run in fresh processes, the command line as users run it, with random weights, which do not matter here.
`--depth` tries it quickly with fewer layers. Writes OUTPUT.md, .json and .png.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gtp_models import GTPConfig, load_recipe
from gtp_models.recipes import write_recipe
from gtp_runtime import Latency, benchmark, load, read_manifest
from gtp_runtime.errors import RandomWeightsWarning

ROUNDS = 3


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


def export(model: str, size: int, batch: int, num_prop: int, preset: str, depth: int | None, place: Path) -> Export:
    """Run the exporter in a process of its own, without its own validation and benchmark."""
    begin = time.perf_counter()
    recipe = with_depth(model, depth, preset, place.with_suffix(".yaml")) if depth else model
    command = [sys.executable, "-m", "gtp_export", "export", recipe, "--weights", "random", "--no-check", "--quiet"]
    settings = {"--img-size": size, "--batch": batch, "--preset": preset, "--num-prop": num_prop, "--output": place}
    process = subprocess.Popen([*command, *(str(part) for pair in settings.items() for part in pair)])
    _, status, usage = os.wait4(process.pid, 0)  # the memory of this child alone
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exporting {model} at {size} pixels, batch {batch}, failed ({process.returncode})")
    manifest = read_manifest(place)
    height, width = manifest.model.grid
    size_of_files = sum(entry.size for entry in manifest.files.values() if entry.role != "reference")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    taken = (time.perf_counter() - begin, usage.ru_utime + usage.ru_stime)
    found = Export(model, height * width, batch, num_prop, *taken, peak / 1e9, size_of_files / 1e6)
    print(found, flush=True)
    return found


def with_depth(model: str, depth: int, preset: str, path: Path) -> str:
    """Write a recipe with another number of layers; return its path."""
    recipe = load_recipe(model)
    settings = recipe.settings(preset=preset)
    assert isinstance(settings, GTPConfig)
    write_recipe(replace(recipe, model_args=recipe.model_args | {"depth": depth}), settings, path)
    return str(path)


def measure(place: Path, seconds: float) -> Iterator[Latency]:
    """Time GTP and its dense baseline in interleaved runs on ONNX Runtime, one thread."""
    models = [load(place / name, "onnxruntime", threads=1) for name in ("dense.onnx", "model.onnx")]
    for model, result in zip(models, benchmark(models, seconds, rounds=ROUNDS), strict=True):
        print(result, flush=True)
        model.close()
        yield replace(result, file=model.path.name)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_s", help="recipe whose latency is measured (default: %(default)s)")
    parser.add_argument("--sizes", default="224,448,512", help="pixels a side (default: %(default)s)")
    parser.add_argument("--num-prop", default="8,32,42", help="one for each size (default: %(default)s)")
    parser.add_argument("--batches", default="1,8,32", help="(default: %(default)s)")
    parser.add_argument("--preset", default="measured", help="GTP's preset (default: %(default)s)")
    parser.add_argument("--exports", default="deit_b", help="recipes that are only exported, as they are")
    parser.add_argument("--depth", type=int, help="layers of --model, for a quick trial (default: all)")
    parser.add_argument("--latency", action=argparse.BooleanOptionalAction, default=True, help="time as well")
    parser.add_argument("--seconds", type=float, default=10, help="of timing a pair, at least (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("docs/growth"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    warnings.simplefilter("ignore", RandomWeightsWarning)
    sizes, amounts, batches = (
        [int(number) for number in text.split(",")] for text in (given.sizes, given.num_prop, given.batches)
    )
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        # Every export before the first measurement: a child's peak memory counts from that of its parent.
        exports = [
            export(model, 224, 1, 8, given.preset, None, place / model) for model in given.exports.split(",") if model
        ]
        pairs: dict[tuple[int, int], Path] = {}
        for size, amount in zip(sizes, amounts, strict=True):
            for batch in batches:
                pair = place / f"{size}-{batch}"
                exports.append(export(given.model, size, batch, amount, given.preset, given.depth, pair))
                pairs[exports[-1].tokens, batch] = pair
        latencies = [
            {"tokens": tokens, "batch": batch, **asdict(result)}
            for (tokens, batch), pair in pairs.items()
            if given.latency
            for result in measure(pair, given.seconds)
        ]
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "depth": given.depth}
    found = {
        "model": given.model,
        "preset": given.preset,
        **machine,
        "exports": [asdict(entry) for entry in exports],
        "latency": latencies,
    }
    given.output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write(found, given.output)


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


if __name__ == "__main__":
    main()
