"""Latency of GTP and its baselines at equal MACs: exports them and times them in turn in one process.

    python benchmarks/latency.py [--models deit_ti,deit_s,deit_b] [--num-prop 2,4,8,12,16] [--batch 1]
                                 [--backends onnxruntime,openvino,openvino-bf16] [--rounds 3]
                                 [--output benchmarks/results/latency]

Weights are random: they do not matter for time. Writes OUTPUT.md, .json and a plot for each model and backend;
what OUTPUT.json holds of other models and backends is kept.
"""

import argparse
import json
import statistics
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cases import Choice
from latency_page import plot, write

from gtp_exporters import ExportOptions, export
from gtp_models import load_recipe
from gtp_models.weights import outline
from gtp_runtime import Latency, benchmark, load
from gtp_runtime.errors import RandomWeightsWarning


def exported(model: str, amounts: list[int], batch: int, place: Path) -> dict[tuple[str, int], Path]:
    """Export the dense model and every method with every amount; return the graphs by (method, amount)."""
    recipe = load_recipe(model)
    choice = Choice(recipe, outline(recipe))
    graphs: dict[tuple[str, int], Path] = {}
    for amount in amounts:
        for method, settings in choice.exported(amount):
            first = not graphs
            options, output = ExportOptions(batch=batch, dense=first), place / f"{method}{amount}"
            export(recipe, output, settings=settings, weights="random", options=options, check=False)
            if first:
                graphs["dense", 0] = output / "dense.onnx"
            graphs[method, amount] = output / "model.onnx"
            print(f"exported {model} {method} {amount}", flush=True)
    return graphs


def measure(
    graphs: dict[tuple[str, int], Path], amounts: list[int], backend: str, seconds: float, rounds: int
) -> list[Any]:
    """Time the methods of each amount in turn with the dense model; return (method, amount, latency)."""
    found = []
    for amount in amounts:
        chosen = [key for key in graphs if key[1] in (0, amount)]
        repeated = [timed([graphs[key] for key in chosen], backend, seconds) for _ in range(rounds)]
        results = [middle(results) for results in zip(*repeated, strict=True)]
        found += [(method, amount, result) for (method, _), result in zip(chosen, results, strict=True)]
        ratios = [f"{key[0]} {result.ratio:.3f}" for key, result in zip(chosen, results, strict=True)]
        print(backend, amount, ratios, flush=True)
    return found


def timed(paths: list[Path], backend: str, seconds: float) -> list[Latency]:
    """Load the files anew, since where a session's memory lies moves its time by a percent, and time them in turn."""
    name, _, compute = backend.partition("-")
    options = {"compute": compute} if compute else {}
    models = [load(path, name, threads=1, **options) for path in paths]
    try:
        return benchmark(models, seconds)
    finally:
        for model in models:
            model.close()


def middle(results: tuple[Latency, ...]) -> Latency:
    """Return the first with the medians of all rounds."""
    fields = [name for name in ("p50_ms", "ratio", "share", "overhead") if getattr(results[0], name) is not None]
    return replace(
        results[0], **{name: statistics.median(getattr(result, name) for result in results) for name in fields}
    )


def plain(method: str, amount: int, result: Latency) -> dict[str, Any]:
    """Return what is written of a measurement, without the folder of its file."""
    return {"method": method, "num_prop": amount} | asdict(result) | {"file": Path(result.file).name}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="deit_ti,deit_s,deit_b")
    parser.add_argument("--num-prop", default="2,4,8,12,16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--backends", default="onnxruntime,openvino,openvino-bf16")
    parser.add_argument("--seconds", type=float, default=15, help="for the six files of one amount together")
    parser.add_argument("--rounds", type=int, default=3, help="sessions made anew; medians are reported")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/latency"))
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parse(given)
    warnings.simplefilter("ignore", RandomWeightsWarning)
    amounts = [int(amount) for amount in arguments.num_prop.split(",")]
    backends, saved = arguments.backends.split(","), arguments.output.with_suffix(".json")
    raw = json.loads(saved.read_text("utf-8")) if saved.exists() else []
    for model in arguments.models.split(","):
        with tempfile.TemporaryDirectory() as place:
            graphs = exported(model, amounts, arguments.batch, Path(place))
            for backend in backends:
                found = measure(graphs, amounts, backend, arguments.seconds, arguments.rounds)
                known = {"model": model, "backend": backend}
                raw = [entry for entry in raw if not known.items() <= entry.items()]
                raw += [known | plain(kind, amount, result) for kind, amount, result in found]
                saved.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
                name = arguments.output.with_name(f"{arguments.output.name}-{model}-{backend}.png")
                own = [entry for entry in raw if known.items() <= entry.items()]
                plot(own, f"{model}, {backend}, batch {arguments.batch}", name)
                write(raw, arguments.output, arguments.rounds)


if __name__ == "__main__":
    main()
