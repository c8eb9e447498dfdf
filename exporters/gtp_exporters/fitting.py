"""Fits where tokens leave, for an export or a grid: when nobody says where, on which images, and what is recorded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gtp_exporters.errors import LimitError
from gtp_exporters.options import ExportOptions
from gtp_exporters.subject import Subject
from gtp_models.errors import ConfigError
from gtp_models.fitting import FittedSchedule, fit, usual_schedule
from gtp_models.fitting.distances import Distance, divergence, divergence_by_class, squared_error
from gtp_models.heads import DENSE
from gtp_models.methods.settings import Settings
from gtp_models.recipes import Recipe
from gtp_models.schedules import FITTED, Costs, is_fitted
from gtp_runtime.errors import ImageError
from gtp_runtime.images.folders import ImageSet, find_images, spread
from gtp_runtime.manifest import CurveInfo, FittingInfo
from gtp_runtime.messages import Progress, one_line, quiet

MOST = 64  # images, spread over the folder: more only cost time
OWN = "the recipe's own"
BUDGETS = ("keep", "macs", "num_prop")


@dataclass(frozen=True)
class FittingImages:
    """Images to fit on, (N, 3, H, W) float32 as the model takes them, and where they are from, in words."""

    images: Float[Tensor, "n 3 height width"]
    origin: str


@dataclass(frozen=True)
class Fitted:
    """A schedule that was fitted: the settings with the amounts of each layer, and what the manifest says of it."""

    settings: Settings
    info: FittingInfo


def usual_settings(
    recipe: Recipe, output: str, method: str = "gtp", preset: str | None = None, **overrides: Any
) -> Settings:
    """Return a recipe's settings; where nobody says where tokens leave and every patch is put out, in "inner" layers.

    Args:
        recipe: the model.
        output: as ``ExportOptions`` takes it.
        method, preset, overrides: as ``Recipe.settings`` takes them.

    Raises:
        ConfigError: as ``Recipe.settings``.
    """
    settings = recipe.settings(method, preset, **overrides)
    if output not in DENSE or not recipe.leaves_schedule_open(method, preset, overrides):
        return settings
    usual = usual_schedule(settings, restore=True)
    return (
        settings if usual == settings.schedule else recipe.settings(method, preset, **overrides | {"schedule": usual})
    )


def default_settings(
    recipe: Recipe, options: ExportOptions, method: str = "gtp", preset: str | None = None, **overrides: Any
) -> Settings:
    """Return settings whose schedule is to be fitted where there are images, and nobody says where tokens leave.

    Args:
        recipe: the model.
        options: of the export; ``latency`` and ``fit_seconds`` ask for a fitted schedule.
        method, preset, overrides: as ``Recipe.settings`` takes them.

    Raises:
        ConfigError: as ``Recipe.settings``.
    """
    has_images = options.calib_data is not None or recipe.calibration is not None
    is_open = has_images and recipe.leaves_schedule_open(method, preset, overrides)
    if overrides.get("schedule") is None and (is_open or options.fits):
        overrides["schedule"] = FITTED
    return usual_settings(recipe, options.output, method, preset, **overrides)


def check_fits(settings: Settings, options: ExportOptions) -> None:
    """Raise ``LimitError`` where options of the fitting have no effect."""
    if options.fits and not is_fitted(settings.schedule):
        raise LimitError(
            "latency and fit_seconds are of a fitted schedule, and these settings say where tokens leave: give "
            "--schedule fitted, or leave them out"
        )


def fitting_images(
    subject: Subject,
    settings: Settings,
    folder: Path | None,
    judges: np.ndarray | Sequence[np.ndarray] = (),
    *,
    files: Iterable[Path] = (),
    is_own: bool,
) -> FittingImages:
    """Return images of a folder to fit on, at most ``MOST`` spread over it, and none of the judges.

    Args:
        subject: the model.
        settings: what is to be fitted.
        folder: of images of the kind that the model will see.
        judges: (N, H, W, 3) uint8 pixels of the images that judge the result.
        files: files of such images.
        is_own: whether the folder is the recipe's own.

    Raises:
        ConfigError: no folder, or nothing but judges.
        ImageError: no images, or one that cannot be read.
    """
    if folder is None:
        raise ConfigError(
            f"schedule={settings.schedule!r} is measured on images: give --calib-data DIR, a folder of 32 or more "
            f"different images of the kind that the model will see, or --schedule {usual_schedule(settings)}"
        )
    judged = {image.tobytes() for image in judges}
    paths = _unseen(spread(find_images(folder), 2 * MOST + len(judged)), files)
    pixels = [image for image in map(subject.preprocessing.pixels, paths) if image.tobytes() not in judged]
    if not pixels:
        raise ConfigError(f"every image of {folder} also judges the result: give others with --calib-data DIR")
    images = torch.from_numpy(subject.preprocessing.normalise(np.stack(spread(pixels, MOST))))
    return FittingImages(images, OWN if is_own else one_line(folder.resolve().name))


def images_of(subject: Subject, images: ImageSet, origin: str) -> FittingImages:
    """Return the images of a set to fit on, at most ``MOST`` spread over it; those that cannot be read are left out.

    Raises:
        ConfigError: none can be read.
    """
    pixels, images = [], images.spread(MOST)
    for index in range(len(images)):
        try:
            pixels.append(subject.preprocessing.pixels(images.path(index)))
        except ImageError:
            continue
    if not pixels:
        raise ConfigError(f"none of the images of {one_line(images.folder.name)} can be read: give others")
    return FittingImages(torch.from_numpy(subject.preprocessing.normalise(np.stack(pixels))), origin)


def _unseen(paths: Sequence[Path], judges: Iterable[Path]) -> list[Path]:
    """Return the files whose content is that of no judge."""
    contents = {path: path.read_bytes() for path in paths}
    sizes = {len(content) for content in contents.values()}
    judged = {judge.read_bytes() for judge in judges if judge.stat().st_size in sizes}
    return [path for path, content in contents.items() if content not in judged]


def fit_settings(
    subject: Subject,
    settings: Settings,
    images: FittingImages,
    *,
    latency: float | None = None,
    costs: Costs | None = None,
    seconds: float | None = None,
    seed: int = 0,
    progress: Progress = quiet,
) -> Fitted:
    """Fit the schedule of settings to a model.

    Args:
        subject: the model.
        settings: with the schedule "fitted" and a budget.
        images: to fit on.
        latency: the budget instead, as a share of what ``costs`` says of the dense model.
        costs: times by number of tokens; MACs without.
        seconds: stop improving after this time.
        seed: of the search.
        progress: called with the current task.

    Raises:
        ConfigError: too few images, or a budget that no schedule meets.
    """
    if latency is not None:
        settings = replace(settings, num_prop=None, macs=None, keep=latency)
    options: dict[str, Any] = {"costs": costs, "seconds": seconds, "seed": seed, "progress": progress}
    options["distance"] = _distance(subject)
    if subject.outputs.is_dense:
        options |= {"forward": lambda batch: _every_output(subject, batch), "restore": True}
    result = fit(subject.model, settings, images.images, **options)
    amount = result.settings.num_prop
    amounts = amount if isinstance(amount, tuple) else (amount or 0,) * len(subject.model.blocks)
    budget = _budget(settings) if latency is None else {"latency": latency}
    info = replace(_info(result, settings, images.origin), budget=budget, num_prop=list(amounts), seconds=seconds)
    return Fitted(settings.resolved(amounts), info)


def _every_output(subject: Subject, images: Tensor) -> Tensor:
    """Return all that a model gives for every patch, (B, values)."""
    return torch.cat([values.flatten(1) for values in subject.outputs.of(subject.model, images)], 1)


def _distance(subject: Subject) -> Distance:
    """Return the distance of what the export will put out."""
    if not subject.classes:
        return squared_error
    return divergence_by_class if subject.activation == "sigmoid" else divergence


def _info(result: FittedSchedule, settings: Settings, origin: str) -> FittingInfo:
    return FittingInfo(
        schedule=settings.schedule or FITTED,
        budget={},
        images=origin,
        count=result.images,
        seed=result.seed,
        measure=result.measure,
        distance=result.distance,
        error=result.error,
        usual=result.usual,
        usual_distance=result.default,
        cost=result.cost,
        num_prop=[],
        runs=result.runs,
        curves=[CurveInfo(curve.layer, list(curve.amounts), list(curve.distances)) for curve in result.curves],
    )


def _budget(settings: Settings) -> dict[str, float]:
    """Return the budget by name; of an amount for each layer, the largest."""
    values = {name: getattr(settings, name) for name in BUDGETS if getattr(settings, name) is not None}
    return {name: float(max(value) if isinstance(value, tuple) else value) for name, value in values.items()}


def advice(model: str) -> str:
    """Return a note for an export of MODEL whose schedule could be fitted, and has no images for it."""
    return (
        "the schedule is not fitted to this model: which layers can spare tokens differs by model, and is measured on "
        f"64 of your images by gtp-export export {model} --calib-data DIR, which changes it only where another loses "
        "surely less (docs/method.md)"
    )
