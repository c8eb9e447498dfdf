"""Latency, accuracy, size, memory and start of GTP and its dense baseline in every precision, on two runtimes.

    python benchmarks/precision.py MODEL [--data DIR] [--calib-data DIR] [--weights pretrained|random|FILE] [--rounds 2]
                                   [--keep 0.743,0.6,0.5] [--forms measured,paper] [--output docs/precision]
                                   [--place DIR] [--parts files,latency,footprint,accuracy]

Accuracy needs images: a recipe's own, or DIR with one sub-folder a class. int8 is calibrated on the recipe's own
images, on --calib-data, or, where only time counts (random weights), on synthetic ones. Latency is taken in turn in one
process, one thread; peak memory and cold start in processes of their own. Exports that --place has are not made again,
and parts that are not asked for stay as OUTPUT.json has them: a machine may be quiet for a while only. Writes
OUTPUT.json (what it holds of other models is kept) and OUTPUT.md.
"""

import argparse
import json
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import Choice
from folders import synthetic
from latency import middle
from precision_page import write
from scores import compare

from gtp_exporters import ExportOptions, QuantizeOptions, export, quantize
from gtp_exporters.describe import write_graph
from gtp_exporters.graphs import read
from gtp_exporters.precision import to_precision
from gtp_exporters.static_check import infer_shapes
from gtp_models import GTPConfig, Recipe, Settings, load_recipe
from gtp_models.weights import outline
from gtp_runtime import Latency, Model, benchmark, load, measure_footprint
from gtp_runtime.class_folders import class_indices
from gtp_runtime.errors import RandomWeightsWarning
from gtp_runtime.images import find_images, spread
from gtp_runtime.manifest import read_manifest, write_manifest

PARTS = ("files", "latency", "footprint", "accuracy")
FILES = ("dense", "model")
CONVERTED = ("fp32", "fp16", "int8_weights", "int4_weights")


@dataclass(frozen=True)
class Case:
    """A precision on a runtime: the precision or the target of int8 that the graphs are made for, and how they run."""

    backend: str
    label: str
    made: str  # one of CONVERTED, or the target of int8
    options: dict[str, str]

    def files(self, place: Path) -> list[Path]:
        """Return the dense file and the reduced one."""
        int8 = "" if self.made in CONVERTED else "int8."
        return [place / self.made / f"{name}.{int8}onnx" for name in FILES]

    def load(self, path: Path) -> Model:
        """Load a file with one thread."""
        return load(path, self.backend, threads=1, **self.options)


CASES = (
    Case("onnxruntime", "fp32", "fp32", {}),
    Case("onnxruntime", "fp16", "fp16", {}),
    Case("onnxruntime", "int8", "onnxruntime", {}),
    Case("onnxruntime", "int8 weights", "int8_weights", {}),
    Case("onnxruntime", "int4 weights", "int4_weights", {}),
    Case("openvino", "fp32", "fp32", {}),
    Case("openvino", "bf16", "fp32", {"compute": "bf16"}),
    Case("openvino", "int8", "openvino", {}),
    Case("openvino", "int8 and bf16", "openvino", {"compute": "bf16"}),
)


def make(recipe: Recipe, settings: Settings, given: argparse.Namespace, calibration: Path | None, place: Path) -> None:
    """Export a model in every form that the cases need, each in a folder of its own, but for those that are there."""
    for name in dict.fromkeys(case.made for case in CASES):
        if not (place / name / "model.json").exists():
            print(f"making {place.name}, {name}", flush=True)
            _make(name, recipe, settings, given, calibration, place)


def _make(
    name: str, recipe: Recipe, settings: Settings, given: argparse.Namespace, calibration: Path | None, place: Path
) -> None:
    """Export in fp32; the other forms are made from these files."""
    if name == "fp32":
        options = ExportOptions(target="onnxruntime", trace=False, data=given.data)
        export(recipe, place / name, settings=settings, weights=given.weights, options=options, check=False)
        return
    half = place / f"{name}.part"
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(place / "fp32", half)
    if name in CONVERTED:
        _convert(half, name)
    else:
        options = QuantizeOptions(name, calibration, given.calib_size, given.calibration, gate=False)
        found = quantize(half, options)
        print(f"int8 for {name}", [(report.divergence, report.problems) for report in found.reports], flush=True)
    half.rename(place / name)


def _convert(place: Path, precision: str) -> None:
    """Write the graphs of an export in another precision."""
    manifest = read_manifest(place)
    files = dict(manifest.files)
    for name in FILES:
        entry = files[f"{name}.onnx"]
        graph = to_precision(infer_shapes(read(place / f"{name}.onnx", entry.external_data)), precision)
        files |= write_graph(place / f"{name}.onnx", graph, entry.role, entry.method, entry.macs)
    write_manifest(replace(manifest, files=files), place)


def chosen(given: argparse.Namespace) -> list[Case]:
    """Return the cases of the precisions and runtimes that are asked for; float32 is always among them."""
    names, backends = given.precisions.split(","), given.backends.split(",")
    return [case for case in CASES if case.backend in backends and case.label in ("fp32", *names)]


def latencies(place: Path, cases: Sequence[Case], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Time all files of a backend in turn; ratios are against its dense float32 file, medians over rounds."""
    rows = []
    for backend in dict.fromkeys(case.backend for case in cases):
        own = [case for case in cases if case.backend == backend]
        results = [middle(found) for found in zip(*(_timed(own, place, seconds) for _ in range(rounds)), strict=True)]
        pairs = zip(results[::2], results[1::2], strict=True)
        for case, (dense, reduced) in zip(own, pairs, strict=True):
            share = (1 - reduced.ratio / dense.ratio) / (1 - (reduced.macs_ratio or 0))
            rows.append(
                {
                    "backend": backend,
                    "precision": case.label,
                    "macs": reduced.macs_ratio,
                    "dense_ms": dense.p50_ms,
                    "dense": dense.ratio,
                    "gtp": reduced.ratio,
                    "share": share,
                    **_fastest(dense, reduced, results[0]),
                }
            )
            print(rows[-1], flush=True)
    return rows


def _fastest(dense: Latency, reduced: Latency, first: Latency) -> dict[str, float]:
    """Return the ratios and the share of the fastest twentieth of the runs, which other work delays least."""
    low = [(result.quantiles_ms or [0, 0])[1] for result in (dense, reduced, first)]
    share = (1 - low[1] / low[0]) / (1 - (reduced.macs_ratio or 0))
    return {"dense_fast": low[0] / low[2], "gtp_fast": low[1] / low[2], "share_fast": share}


def _timed(cases: Sequence[Case], place: Path, seconds: float) -> list[Latency]:
    models = [case.load(path) for case in cases for path in case.files(place)]
    try:
        return benchmark(models, seconds)
    finally:
        for model in models:
            model.close()


def footprints(place: Path, cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Return the size of each file, and the peak memory and cold start of processes that load it and run it."""
    rows = []
    for case in cases:
        for name, path in zip(("dense", "gtp"), case.files(place), strict=True):
            found = measure_footprint(path, case.backend, threads=1, **case.options)
            rows.append({"backend": case.backend, "precision": case.label, "file": name, **found.to_dict()})
            print(rows[-1], flush=True)
    return rows


def accuracies(place: Path, cases: Sequence[Case], folder: Path, limit: int) -> list[dict[str, Any]]:
    """Score every file on labelled images, against the dense float32 file and against its own float32 twin."""
    rows, logits = [], {}
    paths = spread(find_images(folder), limit)
    for case in cases:
        for name, path in zip(("dense", "gtp"), case.files(place), strict=True):
            manifest = read_manifest(path.parent)
            known = (manifest.labels, manifest.label_ids, manifest.model.num_classes)
            labels = torch.tensor(class_indices(folder, paths, *known))
            logits[case.backend, case.label, name] = found = _logits(case, path, paths, place.parent)
            dense = compare(found, logits[case.backend, "fp32", "dense"], labels)
            twin = compare(found, logits[case.backend, "fp32", name], labels)
            own = {"twin_divergence": twin.divergence, "twin_agreement": twin.agreement, "twin_change": twin.change}
            row = {"backend": case.backend, "precision": case.label, "file": name, "images": len(paths)}
            rows.append({**row, **asdict(dense), **own, "twin_change_error": twin.change_error})
            print(rows[-1], flush=True)
    return rows


def _logits(case: Case, path: Path, paths: Sequence[Path], place: Path) -> torch.Tensor:
    """Return (N, classes) logits; those that another run has left there are read: dense files are often the same."""
    manifest = read_manifest(path.parent)
    compute = case.options.get("compute", "fp32")
    kept = place / f"{manifest.entry(path.name).sha256[:16]}-{case.backend}-{compute}-{len(paths)}.npy"
    if not kept.exists():
        with case.load(path) as model:
            np.save(kept, model.logits_of(paths))
    return torch.from_numpy(np.load(kept))


def images_to_calibrate(recipe: Recipe, given: argparse.Namespace, place: Path) -> Path | None:
    """Return the folder that int8 is calibrated on; None for the recipe's own."""
    if given.calib_data is not None or recipe.calibration is not None:
        return given.calib_data
    if given.weights != "random":
        raise SystemExit(f"{recipe.name} has no calibration images of its own: give --calib-data DIR")
    return synthetic(place / "synthetic")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a recipe or a recipe file")
    parser.add_argument("--data", type=Path, help="test images, one sub-folder a class (default: the recipe's own)")
    parser.add_argument("--calib-data", type=Path, help="training images for int8 (default: the recipe's own)")
    parser.add_argument("--calib-size", type=int, default=512)
    parser.add_argument("--calibration", default="minmax")
    parser.add_argument("--weights", default="pretrained", help="pretrained, a file, or random")
    parser.add_argument("--keep", default="0.743,0.6,0.5", help="shares of the MACs (default: %(default)s)")
    parser.add_argument("--forms", default="measured,paper", help="of benchmarks/cases.py (default: %(default)s)")
    parser.add_argument("--precisions", default=",".join(dict.fromkeys(case.label for case in CASES)))
    parser.add_argument("--backends", default=",".join(dict.fromkeys(case.backend for case in CASES)))
    parser.add_argument("--limit", type=int, default=10_000, help="test images at most, spread over the folder")
    parser.add_argument("--seconds", type=float, default=15, help="of timing, for the files of a runtime together")
    parser.add_argument("--rounds", type=int, default=2, help="sessions made anew; medians are reported")
    parser.add_argument("--place", type=Path, help="folder of the exports (default: a temporary one)")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to do (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("docs/precision"))
    return parser.parse_args(arguments)


def measure(case: Path, given: argparse.Namespace, folder: Path | None) -> dict[str, Any]:
    """Return what the parts that are asked for find of one setting."""
    parts, cases = given.parts.split(","), chosen(given)
    found: dict[str, Any] = {}
    if "latency" in parts:
        found["latency"] = latencies(case, cases, given.seconds, given.rounds)
    if "footprint" in parts:
        found["footprint"] = footprints(case, cases)
    if "accuracy" in parts and folder is not None:
        found["accuracy"] = accuracies(case, cases, folder, given.limit)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    warnings.simplefilter("ignore", RandomWeightsWarning)
    torch.set_num_threads(1)
    recipe = load_recipe(given.model)
    saved = given.output.with_suffix(".json")
    known: dict[str, Any] = json.loads(saved.read_text("utf-8")) if saved.exists() else {}
    model = known.setdefault(recipe.name, {"title": recipe.title, "rows": {}})
    with tempfile.TemporaryDirectory() as temporary:
        place = given.place or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        for form in given.forms.split(","):
            for keep in given.keep.split(","):
                name = f"{form} {keep}"
                made = place / f"{recipe.name} {name}"
                if "files" in given.parts:
                    prepare(recipe, form, float(keep), given, made)
                model["rows"].setdefault(name, {}).update(measure(made, given, given.data or recipe.images))
                saved.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    write(known, given.output)


def prepare(recipe: Recipe, form: str, keep: float, given: argparse.Namespace, place: Path) -> None:
    """Make the files of one setting."""
    forms = {"measured": GTPConfig.measured, "paper": Choice(recipe, outline(recipe)).paper}
    place.mkdir(exist_ok=True)
    make(recipe, forms[form](keep=keep), given, images_to_calibrate(recipe, given, place.parent), place)


if __name__ == "__main__":
    main()
