"""Accuracy against measured latency: every method at several amounts of MACs, on trained models.

    python benchmarks/results.py MODEL [--data DIR] [--weights FILE] [--keep 0.85,0.75,0.6,0.5] [--rounds 2]
                                 [--methods tome-2] [--backends onnxruntime,openvino]
                                 [--output benchmarks/results/results]

MODEL is a recipe or a recipe file with images of its own, else DIR holds one sub-folder per class. Accuracy is that of
eager PyTorch on all images. Latency is that of the exported graphs, interleaved with the dense baseline, in one
process, one thread. Writes OUTPUT.json, a plot per backend and OUTPUT.md. What OUTPUT.json holds of other models, and
with --methods of other methods, is kept.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accuracy import Bench
from cases import Choice
from folders import labelled
from latency import middle, timed
from results_page import write

from gtp_exporters import ExportOptions, export
from gtp_exporters.subject import preprocessing_of
from gtp_models import ConfigError, Recipe, Settings, build_model, load_recipe, make_settings


def answers(bench: Bench, cases: list[tuple[str, float, Settings]]) -> list[dict[str, Any]]:
    """Measure the accuracy of every case that fits the model."""
    rows = []
    for label, keep, settings in cases:
        try:
            row = bench.measure("results", label, 0, settings)
        except ConfigError as error:
            print(f"skipped {label} at {keep}: {error}", flush=True)
            continue
        rows.append({"method": label, "keep": keep, **asdict(row)})
        print(f"{label} at {keep}: {row}", flush=True)
    return rows


def latencies(
    recipe: Recipe, weights: str, cases: list[tuple[str, float, Settings]], arguments: argparse.Namespace
) -> dict[str, dict[tuple[str, float], float]]:
    """Export every case and return by backend its p50 as a share of the dense baseline's, medians over rounds."""
    found: dict[str, dict[tuple[str, float], float]] = {backend: {} for backend in arguments.backends.split(",")}
    with tempfile.TemporaryDirectory() as place:
        for keep in dict.fromkeys(keep for _, keep, _ in cases):
            paths: dict[str, Path] = {}
            for label, _, settings in (case for case in cases if case[1] == keep):
                paths[label] = graph(recipe, weights, settings, Path(place) / f"{label}{keep}")
            files = [Path(place) / f"{next(iter(paths))}{keep}" / "dense.onnx", *paths.values()]
            for backend, ratios in found.items():
                repeated = [timed(files, backend, arguments.seconds) for _ in range(arguments.rounds)]
                results = [middle(results) for results in zip(*repeated, strict=True)]
                ratios.update({(label, keep): result.ratio for label, result in zip(paths, results[1:], strict=True)})
                print(keep, backend, {label: round(ratios[label, keep], 3) for label in paths}, flush=True)
    return found


def graph(recipe: Recipe, weights: str, settings: Settings, place: Path) -> Path:
    """Export a case with its dense baseline."""
    export(recipe, place, settings=settings, weights=weights, options=ExportOptions(trace=False), check=False)
    return place / "model.onnx"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a recipe or a recipe file")
    parser.add_argument("--data", type=Path, help="test images, one sub-folder per class (default: the recipe's own)")
    parser.add_argument("--weights", default="pretrained", help="pretrained, a file, or random")
    parser.add_argument("--keep", default="0.85,0.75,0.65,0.55,0.45", help="shares of the MACs (default: %(default)s)")
    parser.add_argument("--methods", help="only these of cases.Choice.results; other rows are kept (default: all)")
    parser.add_argument("--backends", default="onnxruntime,openvino,openvino-bf16")
    parser.add_argument("--limit", type=int, default=10_000, help="images at most, spread over the folder")
    parser.add_argument("--seconds", type=float, default=8, help="of timing, for the files of one share together")
    parser.add_argument("--rounds", type=int, default=2, help="sessions made anew; medians are reported")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/results"))
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parse(given)
    torch.set_num_threads(1)
    recipe = load_recipe(arguments.model)
    folder = arguments.data or recipe.images
    if folder is None:
        raise SystemExit(f"{recipe.name} has no images of its own: give --data DIR, one sub-folder per class")
    built = build_model(recipe, arguments.weights)
    model = built.model
    images, labels = labelled(folder, built, arguments.limit)
    bench = Bench(model, torch.from_numpy(preprocessing_of(model).normalise(images.pixels)), labels)
    choice = Choice(recipe, model)
    shares = [float(share) for share in arguments.keep.split(",")]
    wanted = arguments.methods.split(",") if arguments.methods else None
    cases = [
        (label, keep, settings)
        for keep in shares
        for label, settings in choice.results(keep)
        if wanted is None or label in wanted
    ]
    rows = answers(bench, cases)
    fitting = [case for case in cases if any(row["method"] == case[0] and row["keep"] == case[1] for row in rows)]
    ratios = latencies(recipe, arguments.weights, fitting, arguments)
    for row in rows:
        row["latency"] = {backend: found[row["method"], row["keep"]] for backend, found in ratios.items()}
    dense = asdict(bench.measure("results", "dense", 0, make_settings("dense")))
    saved = arguments.output.with_suffix(".json")
    known: dict[str, Any] = json.loads(saved.read_text("utf-8")) if saved.exists() else {}
    if wanted is not None:
        fresh = {(row["method"], row["keep"]) for row in rows}
        rows = [row for row in known[recipe.name]["rows"] if (row["method"], row["keep"]) not in fresh] + rows
    known[recipe.name] = {"title": recipe.title, "images": len(labels), "dense_top1": dense["top1"], "rows": rows}
    saved.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    write(known, arguments.output)


if __name__ == "__main__":
    main()
