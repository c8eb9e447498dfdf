"""Accuracy of GTP and its rivals at equal MACs, of schedules and of thresholds, on an image folder; eager PyTorch.

    python benchmarks/accuracy.py MODEL [--data DIR] [--weights FILE] [--calib-data DIR] [--num-prop 2,3,4,5]
                                        [--groups methods,schedules,thresholds] [--output docs/accuracy-NAME]

MODEL is a recipe, timm:NAME or a recipe file; DIR holds one sub-folder a class (the recipe's own without).
Writes OUTPUT.md, .json and .png.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from folders import labelled
from thresholds import SPARSITIES, Closeness, closeness, see
from torch import Tensor

from gtp_exporters.calibrating import calibrate_on
from gtp_exporters.data_config import preprocessing_of
from gtp_models import ConfigError, GTPConfig, apply_method, build_model, cost, load_recipe, remove
from gtp_models.rivals.tome import clamped
from gtp_models.schedules import make_schedule
from gtp_models.training import logits_of

METHODS = ("gtp", "prune", "mean", "tome", "drop")
SCHEDULES = ("even", "early", "late", "every:3", "aligned:8")
GROUPS = ("methods", "schedules", "thresholds")


@dataclass(frozen=True)
class Row:
    """One setting at the MACs that GTP has with ``amount`` tokens a layer.

    Attributes:
        group, setting: what it is.
        amount: GTP's ``num_prop`` of these MACs; 0 is the dense model.
        num_prop: the setting's own, for each layer.
        macs: of the backbone, over the dense model's.
        top1, agreement: in percent; agreement with the dense model's answers.
    """

    group: str
    setting: str
    amount: int
    num_prop: list[int]
    macs: float
    top1: float
    agreement: float


class Bench:
    """A model, its images in memory, and its answers so far: no setting is run twice."""

    def __init__(self, model: Any, images: Tensor, labels: Tensor) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.known: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self.dense = self.answers("dense", GTPConfig(num_prop=0, propagation="None"))

    def answers(self, method: str, config: GTPConfig) -> Tensor:
        key = (method, config.schedule(len(self.model.blocks)))
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
        "thresholds": lambda: thresholds(bench, middle, arguments.calib_data or recipe.calibration),
    }
    for group in arguments.groups.split(","):
        found[group] = []
        for row in runs[group]():
            print(row, flush=True)
            found[group].append(asdict(row))
            saved.write_text(json.dumps(found, indent=1) + "\n")
    write(found, output)


HEAD = """# {title}: accuracy at equal MACs

{images} images, eager PyTorch, nothing tuned; made by `benchmarks/accuracy.py`. One image is worth {one:.2f} points,
and a top-1 like the dense model's {dense:.2f} % has a standard error of {error:.2f} points on so many images
(differences between settings, which all see the same images, somewhat less).

![plot]({plot}.png)

Cells are top-1 in % (answers in agreement with the dense model in %). *num_prop* and *MACs* (share of the dense
model's) are GTP's; the others spend the same, except where a cell gives MACs of its own.

"""
AFTER_METHODS = """
Mean takes one token more in each layer, whose place the mean takes. ToMe merges at most half of a layer's tokens, so in
its last layers fewer where `num_prop` asks for more, as its authors' code does.
"""
AFTER_SCHEDULES = """
A dash: no schedule of this kind comes near these MACs.
"""
THRESHOLDS = """
## Thresholds

`num_prop` {amount}. *Entries kept* of the attention map: mean and standard deviation over images, layers and heads.
Against the exact threshold of the same sparsity: images with the same tokens kept in all layers, tokens kept in common
after the last layer ({chance:.0f} % by chance), and the largest difference of an image's logits as a share of
max|logit|, mean and largest over images. *None* is sparsity 1: what happens without a threshold.

"""


def write(found: dict[str, Any], output: Path) -> None:
    rows = [Row(**row) for row in (*found.get("methods", []), *found.get("schedules", []))]
    dense = next((row for row in rows if row.setting == "dense"), None)
    top1 = dense.top1 if dense else 0.0
    images = found["images"]
    numbers = {"one": 100 / images, "error": (top1 * (100 - top1) / images) ** 0.5, "dense": top1}
    parts = [HEAD.format(title=found["title"], images=images, plot=output.name, **numbers)]
    for group, settings, after in (("methods", METHODS, AFTER_METHODS), ("schedules", SCHEDULES, AFTER_SCHEDULES)):
        parts += [f"## {group.capitalize()}\n\n", table(rows, group, settings), after, "\n"]
    if found.get("thresholds"):
        close = [Closeness(**row) for row in found["thresholds"]]
        parts.append(THRESHOLDS.format(amount=close[0].num_prop, chance=close[0].chance))
        parts += [line + "\n" for line in Closeness.table(close)]
    output.with_suffix(".md").write_text("".join(parts).replace("\n\n\n", "\n\n"))
    plot(rows, found["title"], output.with_suffix(".png"))


def table(rows: list[Row], group: str, settings: tuple[str, ...]) -> str:
    """Return a line for each amount, a column for each setting."""
    lines = ["| num_prop | MACs | " + " | ".join(settings) + " |", "| --- " * (len(settings) + 2) + "|"]
    if group == "methods":
        lines += [f"| dense | 1.000 | {row.top1:.2f} |" + " |" * (len(settings) - 1) for row in rows if not row.amount]
    for amount in sorted({row.amount for row in rows if row.group == group and row.amount}):
        of = {row.setting: row for row in rows if (row.group, row.amount) == (group, amount)}
        macs = of[settings[0]].macs
        cells = [cell(of[name], macs) if name in of else "-" for name in settings]
        lines.append(f"| {amount} | {macs:.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(row: Row, macs: float) -> str:
    other = f", {row.macs:.3f}" if abs(row.macs - macs) >= 2e-3 else ""
    return f"{row.top1:.2f} ({row.agreement:.1f}{other})"


def plot(rows: list[Row], title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, 2, figsize=(11, 4.5))
    for axes, group, settings in zip(both, ("methods", "schedules"), (METHODS, SCHEDULES), strict=True):
        for row in rows[:1]:
            axes.axhline(row.top1, color="0.6", linestyle="--", label="dense")
        for setting in settings:
            points = sorted((row.macs, row.top1) for row in rows if (row.group, row.setting) == (group, setting))
            axes.plot([macs for macs, _ in points], [top1 for _, top1 in points], marker="o", label=setting)
        axes.set(xlabel="MACs, share of the dense model's", ylabel="top-1, %", title=group)
        axes.legend()
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
