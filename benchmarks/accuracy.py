"""Accuracy at equal MACs on an image folder: GTP, its baselines, schedules, selections and thresholds; eager PyTorch.

    python benchmarks/accuracy.py MODEL [--data DIR] [--weights FILE] [--calib-data DIR] [--num-prop 2,3,4,5]
                                        [--groups methods,schedules,selections,thresholds]
                                        [--output benchmarks/results/accuracy-NAME]

MODEL is a recipe, timm:NAME or a recipe file; DIR holds one sub-folder per class (the recipe's own without).
What is measured stands in cases.py. Writes OUTPUT.md, .json and .png.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from accuracy_page import GROUPS, Row, write
from cases import Cases, Choice
from folders import labelled
from scores import Scores, compare
from thresholds import Closeness, thresholds
from torch import Tensor
from training import logits_of

from gtp_exporters.subject import preprocessing_of
from gtp_models import ConfigError, Plan, Settings, apply, build_model, load_recipe, make_plan, make_settings, remove


class Bench:
    """A model, its images in memory, and its scores so far: no settings are run twice."""

    def __init__(self, model: Any, images: Tensor, labels: Tensor) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.known: dict[Settings, Scores] = {}
        self.dense = self.logits(make_plan(model, make_settings("dense")))

    def logits(self, plan: Plan) -> Tensor:
        apply(self.model, plan)
        logits = logits_of(self.model, self.images)
        remove(self.model)
        return logits

    def measure(self, group: str, label: str, amount: int, settings: Settings) -> Row:
        plan = make_plan(self.model, settings)
        if plan.settings not in self.known:
            self.known[plan.settings] = compare(self.logits(plan), self.dense, self.labels)
        scores = asdict(self.known[plan.settings])
        return Row(group=group, setting=label, amount=amount, num_prop=list(plan.num_prop), macs=plan.ratio, **scores)

    def rows(self, group: str, cases: Callable[[int], Cases], amounts: list[int]) -> Iterator[Row]:
        if group == "methods":
            yield self.measure(group, "dense", 0, make_settings("dense"))
        for amount in amounts:
            for label, settings in cases(amount):
                try:
                    yield self.measure(group, label, amount, settings)
                except ConfigError as error:  # needs a class token, or no such schedule comes near the budget
                    print(f"skipped {label} at {amount}: {error}", flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a recipe, timm:NAME or a recipe file")
    parser.add_argument("--data", type=Path, help="test images, one sub-folder per class; the recipe's own without")
    parser.add_argument("--weights", default="pretrained", help="pretrained, a file, or random")
    parser.add_argument("--calib-data", type=Path, help="images for calibrated thresholds; the recipe's own without")
    parser.add_argument("--num-prop", default="2,3,4,5", help="GTP's tokens a layer; default: %(default)s")
    parser.add_argument("--limit", type=int, default=10_000, help="images at most, spread over the folder")
    parser.add_argument("--groups", default=",".join(GROUPS), help="what to measure; the rest of OUTPUT.json is kept")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--output", type=Path, help="(default: benchmarks/results/accuracy-NAME)")
    return parser.parse_args(arguments)


def earlier(saved: Path, measured: Sequence[str]) -> dict[str, Any]:
    """Return what a file holds of other groups than those that are measured now."""
    known: dict[str, Any] = json.loads(saved.read_text("utf-8")) if saved.exists() else {}
    kept = {group: known[group] for group in GROUPS if group in known and group not in measured}
    for group, rows in kept.items():
        kind = Closeness if group == "thresholds" else Row
        if any(row.keys() != {field.name for field in fields(kind)} for row in rows):
            raise SystemExit(f"{saved}: its {group} have another form: give another --output, or measure them again")
    return kept


def main(given: Sequence[str] | None = None) -> None:
    arguments = parse(given)
    torch.set_num_threads(arguments.threads)
    recipe = load_recipe(arguments.model)
    output = arguments.output or Path("benchmarks/results") / f"accuracy-{recipe.name}"
    saved, groups = output.with_suffix(".json"), arguments.groups.split(",")
    found = earlier(saved, groups)
    folder = arguments.data or recipe.images
    if folder is None:
        raise SystemExit(f"{recipe.name} has no images of its own: give --data DIR, one sub-folder per class")
    built = build_model(recipe, arguments.weights)
    model = built.model
    images, labels = labelled(folder, built, arguments.limit)
    bench = Bench(model, torch.from_numpy(preprocessing_of(model).normalise(images.pixels)), labels)
    amounts, choice = [int(amount) for amount in arguments.num_prop.split(",")], Choice(recipe, model)
    calibration, middle = arguments.calib_data or recipe.calibration, choice.paper(num_prop=amounts[len(amounts) // 2])
    found |= {"title": recipe.title, "images": len(labels)}
    runs: dict[str, Callable[[], Iterable[Row | Closeness]]] = {
        "methods": lambda: bench.rows("methods", choice.methods, amounts),
        "schedules": lambda: bench.rows("schedules", choice.schedules, amounts),
        "selections": lambda: bench.rows("selections", choice.selections, amounts),
        "thresholds": lambda: thresholds(model, bench.images, labels, middle, calibration),
    }
    for group in groups:
        found[group] = []
        for row in runs[group]():
            print(row, flush=True)
            found[group].append(asdict(row))
            saved.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write(found, output)


if __name__ == "__main__":
    main()
