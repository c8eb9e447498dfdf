"""How cost grows with tokens and batch: latency of GTP and of its dense baseline, the exporter's time and peak memory.

    python benchmarks/growth.py [--model deit_s] [--sizes 224,448,512] [--num-prop 8,32,42] [--batches 1,8,32]
                                [--preset measured] [--exports deit_b] [--depth 2] [--output benchmarks/results/growth]

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
from dataclasses import asdict, replace
from pathlib import Path

from growth_page import Export, write

from gtp_models import GTPConfig, load_recipe
from gtp_models.recipes import write_recipe
from gtp_runtime import Latency, benchmark, load, read_manifest
from gtp_runtime.errors import RandomWeightsWarning

ROUNDS = 3


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
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/growth"))
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


if __name__ == "__main__":
    main()
