"""Latency, accuracy, size, memory and start of GTP and its dense baseline in every precision, on two runtimes.

    python benchmarks/precision.py MODEL [--data DIR] [--calib-data DIR] [--weights pretrained|random|FILE]
                                   [--settings measured:0.743,measured:0.6,measured:0.5,paper:0.743]
                                   [--precisions fp32,int8] [--backends onnxruntime] [--rounds 2] [--place DIR]
                                   [--parts files,latency,footprint,accuracy] [--output benchmarks/results/precision]

Accuracy needs images: a recipe's own, or DIR with one sub-folder a class. int8 is calibrated on the recipe's own
images, on --calib-data, or, where only time counts (random weights), on synthetic ones. Each precision of a runtime is
timed with one thread, in turn with the dense fp32 file; peak memory and cold start are those of processes of their
own, for the dense file and that of the first setting. Files that --place has are not made again. OUTPUT.json keeps
what is not measured again, so models, parts, precisions and settings can be measured in runs of their own, while the
machine is quiet. Writes OUTPUT.json, OUTPUT.md and a plot of latency for each model and runtime.
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latency import middle
from precision_cases import CASES, DENSE, MODEL, Case, Setting, chosen, make
from precision_page import write
from scores import compare

from gtp_models import Recipe, load_recipe
from gtp_runtime import Latency, benchmark, measure_footprint
from gtp_runtime.errors import RandomWeightsWarning
from gtp_runtime.images.folders import find_images, spread
from gtp_runtime.images.labels import class_indices
from gtp_runtime.manifest import read_manifest
from gtp_runtime.transaction.atomic import write_bytes

Entry = dict[str, Any]
File = tuple[Case, Path]
KEY = ("backend", "precision", "form", "keep")


def named(case: Case, setting: Setting | None) -> Entry:
    """Return what tells an entry from others; without a setting it is the dense file's."""
    form, keep = ("dense", "1") if setting is None else (setting.form, setting.keep)
    return dict(zip(KEY, (case.backend, case.label, form, keep), strict=True))


def files_of(case: Case, settings: Sequence[Setting]) -> Iterator[tuple[Entry, Path]]:
    """Yield the dense file of a precision, then that of each setting, and what names them."""
    yield named(case, None), case.path(settings[0].place, DENSE)
    for setting in settings:
        yield named(case, setting), case.path(setting.place, MODEL)


def latencies(case: Case, settings: Sequence[Setting], given: argparse.Namespace) -> Iterator[Entry]:
    """Time the files of a precision in turn with the dense fp32 file; figures are medians over rounds."""
    first = case.in_fp32()
    names, paths = zip(*files_of(case, settings), strict=True)
    files = list(dict.fromkeys([(first, first.path(settings[0].place, DENSE)), *((case, path) for path in paths)]))
    rounds = [_timed(files, given.seconds) for _ in range(given.rounds)]
    found = [middle(results) for results in zip(*rounds, strict=True)][-len(paths) :]
    for name, result in zip(names, found, strict=True):
        macs = result.macs_ratio or 1.0
        share = (1 - result.ratio / found[0].ratio) / (1 - macs) if macs < 1 else None
        yield name | {"macs": macs, "ms": result.p50_ms, "ratio": result.ratio, "share": share}


def _timed(files: Sequence[File], seconds: float) -> list[Latency]:
    models = [case.load(path) for case, path in files]
    try:
        return benchmark(models, seconds)
    finally:
        for model in models:
            model.close()


def footprints(case: Case, settings: Sequence[Setting], _: argparse.Namespace) -> Iterator[Entry]:
    """Return the size of a file, and the peak memory and cold start of processes that load it and run it."""
    for name, path in files_of(case, settings[:1]):
        yield name | measure_footprint(path, case.backend, threads=1, **case.options).to_dict()


def accuracies(case: Case, settings: Sequence[Setting], given: argparse.Namespace) -> Iterator[Entry]:
    """Score files on labelled images, against the dense float32 file and against their own float32 twins."""
    first = case.in_fp32()
    paths = spread(find_images(given.data), given.limit)
    twins = [path for _, path in files_of(first, settings)]
    manifest = read_manifest(twins[0].parent)
    known = (manifest.labels, manifest.label_ids, manifest.model.num_classes)
    labels = torch.tensor(class_indices(given.data, paths, *known))
    place = settings[0].place.parent
    dense = _logits(first, twins[0], paths, place)
    for (name, path), twin in zip(files_of(case, settings), twins, strict=True):
        found = _logits(case, path, paths, place)
        own = compare(found, _logits(first, twin, paths, place), labels)
        scores = {f"twin_{kind}": value for kind, value in asdict(own).items() if not kind.startswith("top1")}
        yield name | {"images": len(paths)} | asdict(compare(found, dense, labels)) | scores


def _logits(case: Case, path: Path, paths: Sequence[Path], place: Path) -> torch.Tensor:
    """Return (N, classes) logits; those that another run has left there are read: dense files are often the same."""
    sha256 = read_manifest(path.parent).entry(path.name).sha256
    kept = place / f"{sha256[:16]}-{case.backend}-{case.compute or 'fp32'}-{len(paths)}.npy"
    if not kept.exists():
        with case.load(path) as model:
            batches = (paths[start : start + model.batch] for start in range(0, len(paths), model.batch))
            parts = [model.logits(np.stack([model.preprocess(path) for path in part]), part) for part in batches]
            np.save(kept, np.concatenate(parts))
    return torch.from_numpy(np.load(kept))


PARTS = {"latency": latencies, "footprint": footprints, "accuracy": accuracies}


def merged(known: list[Entry], found: list[Entry]) -> list[Entry]:
    """Return the entries, those measured again in place of earlier ones, in the order of the page."""
    order = [(case.backend, case.label) for case in CASES]
    every = {tuple(entry[name] for name in KEY): entry for entry in [*known, *found]}
    return sorted(
        every.values(),
        key=lambda entry: (order.index((entry["backend"], entry["precision"])), entry["form"], -float(entry["keep"])),
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a recipe or a recipe file")
    parser.add_argument("--data", type=Path, help="test images, one sub-folder a class (default: the recipe's own)")
    parser.add_argument("--calib-data", type=Path, help="training images for int8 (default: the recipe's own)")
    parser.add_argument("--calib-size", type=int, default=512)
    parser.add_argument("--calibration", default="minmax")
    parser.add_argument("--weights", default="pretrained", help="pretrained, a file, or random")
    parser.add_argument(
        "--settings",
        default="measured:0.743,measured:0.6,measured:0.5,paper:0.743",
        help="measured or paper, and the share of the MACs (default: %(default)s)",
    )
    parser.add_argument("--precisions", default=",".join(dict.fromkeys(case.label for case in CASES)))
    parser.add_argument("--backends", default=",".join(dict.fromkeys(case.backend for case in CASES)))
    parser.add_argument("--limit", type=int, default=10_000, help="test images at most, spread over the folder")
    parser.add_argument("--seconds", type=float, default=15, help="of timing, for the files of a precision together")
    parser.add_argument("--rounds", type=int, default=2, help="sessions made anew; medians are reported")
    parser.add_argument("--place", type=Path, help="folder of the exports (default: a temporary one)")
    parser.add_argument("--parts", default=",".join(["files", *PARTS]), help="what to do (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/precision"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    warnings.simplefilter("ignore", RandomWeightsWarning)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        measure(given, given.place or Path(temporary))


def measure(given: argparse.Namespace, folder: Path) -> None:
    """Do the parts that are asked for, one precision after the other; each is written when it is done."""
    recipe, cases = load_recipe(given.model), chosen(given.precisions, given.backends)
    settings = [Setting.of(text, recipe, folder) for text in given.settings.split(",")]
    parts = given.parts.split(",")
    for setting in settings if "files" in parts else []:
        setting.place.mkdir(parents=True, exist_ok=True)
        make(recipe, setting, given, cases)
    given.data = given.data or recipe.images
    known: dict[str, Any] = {}
    for part in (name for name in PARTS if name in parts and (name != "accuracy" or given.data)):
        for case in cases:
            found = list(PARTS[part](case, settings, given))
            print(part, *found, sep="\n  ", flush=True)
            known = store(given.output.with_suffix(".json"), recipe, part, found)
    if known:
        write(known, given.output)


def store(path: Path, recipe: Recipe, part: str, found: list[Entry]) -> dict[str, Any]:
    """Add entries to the file, which is read anew: other runs may write to it as well. Return its contents."""
    known: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    model = known.setdefault(recipe.name, {"title": recipe.title})
    model[part] = merged(model.get(part, []), found)
    write_bytes(path, (json.dumps(known, indent=1) + "\n").encode())
    return known


if __name__ == "__main__":
    main()
