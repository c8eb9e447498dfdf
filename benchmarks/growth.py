"""How cost grows with tokens and batch: latency of GTP and of its dense baseline, the exporter's time and peak memory.

    python benchmarks/growth.py [--model deit_s] [--sizes 224,448,512] [--num-prop 8,32,42] [--batches 1,8,32]
                                [--preset measured] [--exports deit_b] [--depth 2] [--output benchmarks/results/growth]

Exports run in fresh processes, the command line as users run it, with random weights, which do not matter here.
`--depth` tries it quickly with fewer layers. Writes OUTPUT.md, .jsonl and .svg.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from words import GROWTH, GROWTH_EXPORTS, GROWTH_LATENCY

from gtp_exporters.measuring.candidate import DENSE, Candidate, Running
from gtp_exporters.measuring.latency import share_of, time_in_turn
from gtp_exporters.measuring.pages import Column, Measure, make_panel, markdown, number
from gtp_exporters.measuring.result import Result
from gtp_exporters.measuring.store import Store
from gtp_exporters.report.drawing import Panel, draw
from gtp_models import GTPConfig, Recipe, load_recipe, make_plan, make_settings
from gtp_models.recipes import write_recipe
from gtp_models.weights import outline
from gtp_runtime import Footprint, read_manifest
from gtp_runtime.atomic import write_bytes
from gtp_runtime.errors import RandomWeightsWarning

ROUNDS = 3
GTP = "GTP"
RUNNING = Running("onnxruntime", {"threads": 1})
PIXELS = 224  # a side, of recipes that are only exported


def planned(recipe: Recipe, size: int, batch: int, num_prop: int, preset: str) -> tuple[Candidate, Candidate]:
    """Return the dense model and GTP at an image size."""
    model = outline(recipe.sized((size, size)))
    settings = recipe.settings(preset=preset, num_prop=num_prop)
    dense, gtp = (make_plan(model, one) for one in (make_settings(DENSE), settings))
    return Candidate(DENSE, dense, RUNNING, batch), Candidate(GTP, gtp, RUNNING, batch)


def export(recipe: Recipe, size: int, batch: int, num_prop: int, preset: str, place: Path) -> Result:
    """Run the exporter in a process of its own, without its own validation and benchmark; return what it took."""
    begin = time.perf_counter()
    settings = recipe.settings(preset=preset)
    assert isinstance(settings, GTPConfig)
    path = place.with_suffix(".yaml")
    write_recipe(recipe, settings, path)
    command = [sys.executable, "-m", "gtp_export", "export", path, "--weights", "random", "--no-check", "--quiet"]
    values = {"--img-size": size, "--batch": batch, "--preset": preset, "--num-prop": num_prop, "-o": place}
    process = subprocess.Popen([*map(str, command), *(str(part) for pair in values.items() for part in pair)])
    _, status, usage = os.wait4(process.pid, 0)  # the memory of this child alone
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exporting {recipe.name} at {size} pixels, batch {batch}, failed ({process.returncode})")
    manifest = read_manifest(place)
    height, width = manifest.model.grid
    files = sum(entry.size for entry in manifest.files.values() if entry.role != "reference")
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    taken = {"seconds": time.perf_counter() - begin, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    budget = {"tokens": height * width, "batch": batch, "num_prop": num_prop}
    gtp = replace(planned(recipe, size, batch, num_prop, preset)[1], name=recipe.name)
    result = Result.of(gtp, budget=budget, cost=Footprint(files, peak), parameters=taken)
    print(recipe.name, budget, taken, result.cost, flush=True)
    return result


def measure(place: Path, pair: Sequence[Candidate], budget: dict[str, Any], seconds: float) -> list[Result]:
    """Time GTP and its dense baseline in turn."""
    files = [place / name for name in ("dense.onnx", "model.onnx")]
    timings = time_in_turn(files, [one.running for one in pair], seconds, loads=1, rounds=ROUNDS)
    print(budget, timings, flush=True)
    return [
        Result.of(one, timing=timing, budget=budget, share=share_of(timing, timings[0], one.plan.ratio))
        for one, timing in zip(pair, timings, strict=True)
    ]


def _per_image(row: Result) -> float:
    return row.timing.p50_ms / row.budget["batch"] if row.timing else 0.0


def _dense_per_image(row: Result) -> float:
    return row.timing.dense_ms / row.budget["batch"] if row.timing else 0.0


def _peak_gb(row: Result) -> float:
    return (row.cost.peak_mib or 0.0) * 2**20 / 1e9 if row.cost else 0.0


SHAPE = (
    Column("image tokens", lambda row: str(row.budget["tokens"])),
    Column("batch", lambda row: str(row.budget["batch"])),
)
LATENCY = (
    *SHAPE,
    Column("dense ms", lambda row: number(_dense_per_image(row), 1)),
    Column("GTP ms", lambda row: number(_per_image(row), 1)),
    Column("ratio", lambda row: number(row.ratio, 3)),
    Column("MACs", lambda row: number(row.macs_ratio, 3)),
    Column("share realised", lambda row: number(row.share, 2)),
)
EXPORTS = (
    Column("model", lambda row: row.name),
    *SHAPE,
    Column("num_prop", lambda row: str(row.budget["num_prop"])),
    Column("seconds", lambda row: number(row.parameters["seconds"], 0)),
    Column("CPU seconds", lambda row: number(row.parameters["cpu_seconds"], 0)),
    Column("peak GB", lambda row: number(_peak_gb(row), 2)),
    Column("files MB", lambda row: number(row.cost.file_bytes / 1e6 if row.cost else None, 0)),
)
TOKENS = Measure("image tokens", lambda row: row.budget["tokens"])


def write(store: Store, output: Path) -> None:
    """Write the page and the plot of what a store holds."""
    about, exports, latency = store.values["about"], store.results("exports") or [], store.results("latency") or []
    depth = f" **Only {about['depth']} layers: a trial.**" if about["depth"] else ""
    parts = [GROWTH.format(**about | {"depth_words": depth}, plot=output.name)]
    reduced = [row for row in latency if row.name == GTP]
    table = "\n".join(markdown(LATENCY, reduced)) if reduced else "Latency was not measured in this run."
    parts += [GROWTH_LATENCY.format(model=about["model"]), table]
    parts += [GROWTH_EXPORTS, "\n".join(markdown(EXPORTS, exports))]
    parts += [f"Made by `python benchmarks/growth.py{about['arguments']}`."]
    write_bytes(output.with_suffix(".md"), ("\n\n".join(part.strip() for part in parts) + "\n").encode())
    write_bytes(output.with_suffix(".svg"), plot(about["model"], exports, latency).encode())


def plot(model: str, exports: Sequence[Result], latency: Sequence[Result]) -> str:
    """Return time per image, and the exporter's peak memory, by tokens: a line for each batch."""
    own = [replace(row, name="export") for row in exports if row.name == model]
    batches = list(dict.fromkeys(row.budget["batch"] for row in own))
    names = [f"{kind}, batch {batch}" for kind in (DENSE, GTP, "export") for batch in batches]

    def panel(title: str, measure: Measure, rows: Sequence[Result]) -> Panel:
        named = [replace(row, is_front=True, name=f"{row.name}, batch {row.budget['batch']}") for row in rows]
        series = [[row for row in named if row.name == name] for name in names]
        return make_panel(title, measure, series, named, (), TOKENS)

    panels = [panel("latency", Measure("ms per image", _per_image), latency)] if latency else []
    panels.append(panel("exporter", Measure("peak GB", _peak_gb), own))
    return draw(f"{model}: cost by tokens", names, [panels], set(names))


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


def about(given: argparse.Namespace) -> dict[str, Any]:
    """Return what was asked for, and the machine."""
    plain = vars(parse([]))
    options = {name: value for name, value in vars(given).items() if name != "output" and value != plain[name]}
    words = "".join(f" --{name.replace('_', '-')} {value}" for name, value in options.items())
    machine = {"machine": platform.machine(), "cores": os.cpu_count()}
    return {"model": given.model, "preset": given.preset, "depth": given.depth, "arguments": words, **machine}


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    warnings.simplefilter("ignore", RandomWeightsWarning)
    sizes, amounts, batches = (
        [int(number) for number in text.split(",")] for text in (given.sizes, given.num_prop, given.batches)
    )
    recipe = load_recipe(given.model)
    if given.depth:
        recipe = replace(recipe, model_args=recipe.model_args | {"depth": given.depth})
    shapes = [(size, batch, amount) for size, amount in zip(sizes, amounts, strict=True) for batch in batches]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        # Every export before the first measurement: a child's peak memory counts from that of its parent.
        alone = [load_recipe(name) for name in given.exports.split(",") if name]
        exports = [export(one, PIXELS, 1, 8, given.preset, place / one.name) for one in alone]
        places = [place / f"{size}-{batch}" for size, batch, _ in shapes]
        own = [export(recipe, *shape, given.preset, path) for shape, path in zip(shapes, places, strict=True)]
        latency = [
            row
            for shape, path, exported in zip(shapes, places, own, strict=True)
            if given.latency
            for row in measure(path, planned(recipe, *shape, given.preset), exported.budget, given.seconds)
        ]
    store = Store(given.output.with_suffix(".jsonl"), {"page": "growth"})
    store.keep("about", about(given))
    store.keep_results("exports", exports + own)
    store.keep_results("latency", latency)
    write(store, given.output)


if __name__ == "__main__":
    main()
