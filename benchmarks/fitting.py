"""Fitted schedules beside fixed ones at equal MACs, on images kept apart from the fitting; eager PyTorch.

    python benchmarks/fitting.py MODEL [--weights FILE] [--data DIR] [--calib-data DIR] [--keep .745,.6,.55]

MODEL is a recipe, timm:NAME or a recipe file. CALIB-DATA holds the images of the fitting, DIR those that judge, with
one sub-folder per class (the recipe's own without). Prints a Markdown table: the divergence from the dense model with
its standard error, the share of images with the dense model's class, and where tokens leave.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from folders import labelled
from scores import compare, with_error
from torch import Tensor

from gtp_exporters.subject import preprocessing_of
from gtp_models import GTPConfig, Settings, apply, build_model, load_recipe, make_plan, make_settings, remove
from gtp_models.errors import ConfigError
from gtp_models.fitting import fit

FITTED_ON = 64  # images at most
TOGETHER = 32


def logits_of(model: Any, images: Tensor) -> Tensor:
    """Run (N, 3, H, W) images, some at a time."""
    with torch.inference_mode():
        return torch.cat([model(some) for some in torch.split(images, TOGETHER)])


def cases(keep: float) -> Iterator[tuple[str, Settings, bool]]:
    """Yield a label, settings, and whether they are fitted."""
    yield "ToMe, every layer", make_settings("tome", keep=keep), False
    yield "ToMe, fitted", make_settings("tome", keep=keep), True
    yield "paper", GTPConfig.paper(keep=keep), False
    yield "measured, default", GTPConfig.measured(keep=keep), False
    yield "measured, fitted", GTPConfig.measured(keep=keep), True


def rows(model: Any, fitting: Tensor, judging: Tensor, labels: Tensor, keeps: list[float], steps: int) -> Iterator[str]:
    """Yield the lines of the table."""
    dense = logits_of(model, judging)
    for keep in keeps:
        for label, settings, fitted in cases(keep):
            try:
                chosen = fit(model, settings, fitting, max_steps=steps).settings if fitted else settings
                plan = make_plan(model, chosen)
            except ConfigError as error:
                yield f"| {keep} | {label} | {error} | | |"
                continue
            scores = compare(logits_of(apply(model, plan), judging), dense, labels)
            remove(model)
            leaving = ", ".join(f"{amount} in {layer}" for layer, amount in enumerate(plan.num_prop) if amount)
            divergence = with_error(scores.divergence, scores.divergence_error, 5)
            yield f"| {plan.ratio:.3f} | {label} | {divergence} | {scores.agreement:.1f} | {leaving} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a recipe, timm:NAME or a recipe file")
    parser.add_argument("--weights", default="pretrained", help="pretrained, a file, or random")
    parser.add_argument(
        "--data", type=Path, help="images that judge, one sub-folder per class; the recipe's own without"
    )
    parser.add_argument("--calib-data", type=Path, help="images of the fitting, likewise")
    parser.add_argument("--keep", default=".745,.6,.55", help="shares of the MACs; default: %(default)s")
    parser.add_argument("--steps", type=int, default=6, help="layers that reduce, at most; default: %(default)s")
    parser.add_argument("--limit", type=int, default=2000, help="images that judge, at most; default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = load_recipe(arguments.model)
    model = build_model(recipe, arguments.weights).model
    folders = (arguments.calib_data or recipe.calibration, arguments.data or recipe.images)
    if None in folders:
        raise SystemExit(f"{recipe.name} has no images of its own: give --calib-data DIR and --data DIR")
    limits = (FITTED_ON, arguments.limit)
    fitting, judging = (labelled(folder, recipe, model, limit) for folder, limit in zip(folders, limits, strict=True))
    tensors = [torch.from_numpy(preprocessing_of(model).normalise(images.pixels)) for images, _ in (fitting, judging)]
    print("| MACs | schedule | divergence | agreement % | tokens that leave |\n" + "| --- " * 5 + "|", flush=True)
    keeps = [float(keep) for keep in arguments.keep.split(",")]
    for line in rows(model, *tensors, judging[1], keeps, arguments.steps):
        print(line, flush=True)


if __name__ == "__main__":
    main()
