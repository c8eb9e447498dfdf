"""Accuracy at equal MACs on an image folder: GTP, its rivals, schedules, selections and thresholds; eager PyTorch.

    python benchmarks/accuracy.py MODEL [--data DIR] [--weights FILE] [--calib-data DIR] [--num-prop 2,3,4,5]
                                        [--groups methods,schedules,selections,thresholds] [--output docs/accuracy-NAME]

MODEL is a recipe, timm:NAME or a recipe file; DIR holds one sub-folder a class (the recipe's own without).
Writes OUTPUT.md, .json and .png.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accuracy_page import METHODS, SCHEDULES, SELECTIONS, Row, write
from folders import labelled
from thresholds import SPARSITIES, Closeness, closeness, see
from torch import Tensor

from gtp_exporters.calibrating import calibrate_on
from gtp_exporters.data_config import preprocessing_of
from gtp_models import ConfigError, GTPConfig, apply_method, build_model, cost, load_recipe, remove
from gtp_models.methods.tome import clamped
from gtp_models.schedules import make_schedule
from gtp_models.training import logits_of

GROUPS = ("methods", "schedules", "selections", "thresholds")


class Bench:
    """A model, its images in memory, and its answers so far: no setting is run twice."""

    def __init__(self, model: Any, images: Tensor, labels: Tensor) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.known: dict[tuple[str, tuple[int, ...], str], Tensor] = {}
        self.dense = self.answers("dense", GTPConfig(num_prop=0, propagation="None"))

    def answers(self, method: str, config: GTPConfig) -> Tensor:
        key = (method, config.schedule(len(self.model.blocks)), config.selection)
        if key not in self.known:
            apply_method(self.model, method, config)
            self.known[key] = logits_of(self.model, self.images).argmax(1)
            remove(self.model)
        return self.known[key]

    def measure(self, group: str, setting: str, amount: int, method: str, config: GTPConfig) -> Row:
        macs, answers = cost(self.model, config, method), self.answers(method, config)
        top1, agreement = (100 * float((answers == truth).double().mean()) for truth in (self.labels, self.dense))
        schedule = list(config.schedule(len(self.model.blocks)))
        return Row(group, setting, amount, schedule, macs.backbone / macs.dense, top1, agreement)


def equal(model: Any, method: str, config: GTPConfig) -> GTPConfig:
    """Return what a method needs for GTP's token counts: Mean's new token takes the place of one more that leaves;
    ToMe merges at most half of a layer's tokens, and fewer there, as its authors' code does.
    """
    schedule = config.schedule(len(model.blocks))
    if method == "mean":
        return replace(config, num_prop=tuple(amount + 1 for amount in schedule))
    if method == "tome":
        return replace(config, num_prop=clamped(schedule, model.patch_embed.num_patches, model.num_prefix_tokens))
    return config


def methods(bench: Bench, base: GTPConfig, amounts: list[int]) -> Iterator[Row]:
    yield bench.measure("methods", "dense", 0, "dense", replace(base, num_prop=0))
    for amount in amounts:
        for method in METHODS:
            config = equal(bench.model, method, replace(base, num_prop=amount))
            yield bench.measure("methods", method, amount, method, config)


def schedules(bench: Bench, base: GTPConfig, amounts: list[int]) -> Iterator[Row]:
    for amount in amounts:
        even = replace(base, num_prop=amount)
        for kind in SCHEDULES:
            try:
                config = make_schedule(bench.model, even, kind, cost(bench.model, even).backbone)
                yield bench.measure("schedules", kind, amount, "gtp", config)
            except ConfigError as error:  # none of this kind comes near the budget
                print(f"skipped {kind} at {amount}: {error}", flush=True)


def selections(bench: Bench, base: GTPConfig, amounts: list[int]) -> Iterator[Row]:
    for amount in amounts:
        for selection in SELECTIONS:
            if bench.model.has_class_token or not selection.startswith("CLSAttn"):
                config = replace(base, num_prop=amount, selection=selection)
                yield bench.measure("selections", selection, amount, "gtp", config)


def thresholds(bench: Bench, base: GTPConfig, calibration: Path | None) -> Iterator[Closeness]:
    none = see(bench.model, bench.images, base)
    for sparsity in SPARSITIES:
        exact = replace(base, sparsity=sparsity)
        calibrated = calibrate_on(bench.model, replace(exact, threshold="calibrated"), calibration)
        truth, near = (see(bench.model, bench.images, config) for config in (exact, calibrated))
        for name, seen in (("exact", truth), ("calibrated", near), ("none", none)):
            yield closeness(seen, truth, bench.labels, name, exact)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a recipe, timm:NAME or a recipe file")
    parser.add_argument("--data", type=Path, help="test images, one sub-folder a class; the recipe's own without")
    parser.add_argument("--weights", default="pretrained", help="pretrained, a file, or random")
    parser.add_argument("--calib-data", type=Path, help="images for calibrated thresholds; the recipe's own without")
    parser.add_argument("--num-prop", default="2,3,4,5", help="GTP's tokens a layer; default: %(default)s")
    parser.add_argument("--limit", type=int, default=10_000, help="images at most, spread over the folder")
    parser.add_argument("--groups", default=",".join(GROUPS), help="what to measure; the rest of OUTPUT.json is kept")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--output", type=Path, help="docs/accuracy-NAME without")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parse(given)
    torch.set_num_threads(arguments.threads)
    recipe = load_recipe(arguments.model)
    model = build_model(recipe, arguments.weights).model
    images, labels = labelled(arguments.data or recipe.images, recipe, model, arguments.limit)
    bench = Bench(model, torch.from_numpy(preprocessing_of(model).normalise(images.pixels)), labels)
    amounts = [int(amount) for amount in arguments.num_prop.split(",")]
    base = replace(recipe.config(), sparsity=1.0)
    middle = replace(base, num_prop=amounts[len(amounts) // 2])
    output = arguments.output or Path("docs") / f"accuracy-{recipe.name}"
    saved = output.with_suffix(".json")
    found: dict[str, Any] = json.loads(saved.read_text()) if saved.exists() else {}
    found |= {"title": recipe.title, "images": len(labels)}
    runs = {
        "methods": lambda: methods(bench, base, amounts),
        "schedules": lambda: schedules(bench, base, amounts),
        "selections": lambda: selections(bench, base, amounts),
        "thresholds": lambda: thresholds(bench, middle, arguments.calib_data or recipe.calibration),
    }
    for group in arguments.groups.split(","):
        found[group] = []
        for row in runs[group]():
            print(row, flush=True)
            found[group].append(asdict(row))
            saved.write_text(json.dumps(found, indent=1) + "\n")
    write(found, output)


if __name__ == "__main__":
    main()
