"""Accuracy of GTP and its rivals at equal MACs, of schedules and of thresholds, on an image folder; eager PyTorch.

    python benchmarks/accuracy.py MODEL --data DIR [--weights FILE] [--calib-data DIR] [--num-prop 2,3,4,5]
                                        [--output docs/accuracy-NAME]

MODEL is a recipe, timm:NAME or a recipe file; DIR holds one sub-folder a class. Writes OUTPUT.md, .json and .png.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gtp_exporters.calibrating import calibrate_on
from gtp_exporters.data_config import labels_of, preprocessing_of
from gtp_models import GTPConfig, apply_method, build_model, cost, load_recipe, remove
from gtp_models.errors import ConfigError
from gtp_models.schedules import make_schedule
from gtp_runtime.images import class_indices, find_images, spread

METHODS = ("gtp", "prune", "mean", "tome", "drop")
SCHEDULES = ("even", "early", "late", "every:3", "aligned:8")
SPARSITIES = (0.9, 0.7, 0.5)
GROUPS = ("methods", "schedules", "thresholds")
BATCH = 200


@dataclass(frozen=True)
class Row:
    """One setting: what it is, its MACs over the dense model's, top-1 and agreement with dense in percent."""

    group: str
    setting: str
    amount: str
    macs: float
    top1: float
    agreement: float


class Bench:
    """A model, its images in memory, and its dense answers."""

    def __init__(self, model: Any, pixels: torch.Tensor, labels: np.ndarray) -> None:
        self.model, self.pixels, self.labels = model, pixels, labels
        self.dense = self.answers()

    @torch.inference_mode()
    def answers(self) -> np.ndarray:
        parts = [self.model(batch).argmax(1).numpy() for batch in torch.split(self.pixels, BATCH)]
        return np.concatenate(parts)

    def measure(self, group: str, setting: str, method: str, config: GTPConfig) -> Row:
        macs = cost(remove(self.model), config, method)
        apply_method(self.model, method, config)
        answers = self.answers()
        remove(self.model)
        amount = str(config.num_prop).strip("()").replace(" ", "")
        top1, agreement = 100 * (answers == self.labels).mean(), 100 * (answers == self.dense).mean()
        row = Row(group, setting, amount, macs.backbone / macs.dense, float(top1), float(agreement))
        print(row, flush=True)
        return row


def settings(
    bench: Bench, base: GTPConfig, amounts: list[int], calibration: Path | None
) -> Iterator[tuple[str, str, str, GTPConfig]]:
    """Yield (group, setting, method, settings) of everything that is compared."""
    yield "methods", "dense", "dense", GTPConfig(num_prop=0, propagation="None")
    for amount in amounts:
        yield from (("methods", method, method, replace(base, num_prop=amount)) for method in METHODS)
    middle = replace(base, num_prop=amounts[len(amounts) // 2])
    budget = cost(bench.model, middle).backbone
    for kind in SCHEDULES:
        yield "schedules", kind, "gtp", make_schedule(bench.model, middle, kind, budget)
    for sparsity in SPARSITIES:
        exact = replace(middle, sparsity=sparsity)
        yield "thresholds", f"{sparsity} exact", "gtp", exact
        if calibration is not None:
            calibrated = calibrate_on(bench.model, replace(exact, threshold="calibrated"), calibration)
            yield "thresholds", f"{sparsity} calibrated", "gtp", calibrated


def rows(bench: Bench, wanted: Iterator[tuple[str, str, str, GTPConfig]], groups: list[str]) -> Iterator[Row]:
    for group, setting, method, config in wanted:
        try:
            if group in groups:
                yield bench.measure(group, setting, method, config)
        except ConfigError as error:  # a rival that cannot take so many tokens
            print(f"skipped {setting} {config.num_prop}: {error}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--calib-data", type=Path)
    parser.add_argument("--num-prop", default="2,3,4,5")
    parser.add_argument("--limit", type=int, default=10_000, help="images at most, spread over the folder")
    parser.add_argument("--groups", default=",".join(GROUPS), help="what to measure; the rest of OUTPUT.json is kept")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.model)
    model = build_model(recipe, arguments.weights).model
    bench = Bench(model, *read(arguments.data or recipe.images, recipe, model, arguments.limit))
    amounts = [int(amount) for amount in arguments.num_prop.split(",")]
    base = replace(recipe.config(), sparsity=1.0)
    output = arguments.output or Path("docs") / f"accuracy-{recipe.name}"
    groups = arguments.groups.split(",")
    known = json.loads(output.with_suffix(".json").read_text()) if output.with_suffix(".json").exists() else []
    kept = [Row(**row) for row in known if row["group"] not in groups]
    wanted = settings(bench, base, amounts, arguments.calib_data or recipe.calibration)
    found = sorted([*kept, *rows(bench, wanted, groups)], key=lambda row: GROUPS.index(row.group))
    write(found, recipe.title, len(bench.labels), output)


def read(folder: Path, recipe: Any, model: Any, limit: int) -> tuple[torch.Tensor, np.ndarray]:
    preprocessing, (labels, ids) = preprocessing_of(model), labels_of(recipe, model.num_classes)
    paths = spread(find_images(folder), limit)
    classes = class_indices(folder, paths, labels, ids, model.num_classes)
    if classes is None:
        raise SystemExit(f"{folder} has no class folders: accuracy needs one sub-folder a class")
    pixels = np.stack([preprocessing(path) for path in paths])
    return torch.from_numpy(pixels), np.asarray(classes)


COLUMNS = ("group", "setting", "num_prop", "MACs", "top-1 %", "agrees with dense %")
HEAD = """# {title}: accuracy at equal MACs

{images} images, eager PyTorch, nothing tuned. Made by `benchmarks/accuracy.py`.

![plot]({plot}.png)

"""


def write(found: list[Row], title: str, images: int, output: Path) -> None:
    output.with_suffix(".json").write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")
    cells = [COLUMNS, ("---",) * len(COLUMNS)]
    for row in found:
        cells.append((row.group, row.setting, row.amount, f"{row.macs:.3f}", f"{row.top1:.2f}", f"{row.agreement:.1f}"))
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    head = HEAD.format(title=title, images=images, plot=output.name)
    output.with_suffix(".md").write_text(head + "\n".join(lines) + "\n")
    plot(found, title, output.with_suffix(".png"))


def plot(found: list[Row], title: str, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    dense = found[0]
    axes.axhline(dense.top1, color="0.6", linestyle="--", label="dense")
    for method in METHODS:
        points = [row for row in found if row.group == "methods" and row.setting == method]
        axes.plot([row.macs for row in points], [row.top1 for row in points], marker="o", label=method)
    axes.set(xlabel="MACs, share of the dense model's", ylabel="top-1, %", title=title)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
