"""Fits a schedule to a model: where tokens leave, and how many, by measuring on unlabelled images.

1. The dense model runs once; the states before each layer are kept, so that later only the layers behind the first
   step run (``suffix``).
2. For each layer the distance from the dense model is measured when tokens leave in it alone.
3. These curves predict the distance of any schedule of the budget (``curves``, ``space``). The best predictions are
   measured in rounds, beginning with the schedule that the settings ask for; each round corrects the predictions
   (``search``).
4. The schedule that the settings ask for stays unless the best is surely nearer: many schedules are tried on few
   images, so that the best looks better than it is.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtp_models.errors import ConfigError
from gtp_models.fitting.curves import Curve
from gtp_models.fitting.distances import Distance, Judge, distance_by, distance_for
from gtp_models.fitting.search import Search
from gtp_models.fitting.space import Space, steps_of, tile_for
from gtp_models.fitting.suffix import Forward, SuffixRunner
from gtp_models.methods.gtp.config import PRESETS
from gtp_models.methods.settings import Settings
from gtp_models.plan import ModelCosts, make_plan, model_shape
from gtp_models.schedules import CLOSE, INNER, Amounts, Costs, is_fitted, most_steps
from gtp_runtime.messages import Progress, quiet
from gtp_runtime.metrics import Own

OUTPUT = "output"  # its name for a metric of the user's
SURE = 2.0  # standard errors of the paired differences by which a schedule has to be nearer than the one asked for
CURVE_TOKENS = 4096  # of all images of the curves together: 16 images of 256 patches
LESS = (0.0, 0.005, 0.01, 0.02, 0.03)  # of the dense cost: to bring the schedule that was asked for within the budget


@dataclass(frozen=True)
class FittedSchedule:
    """A schedule that was fitted, and how.

    Attributes:
        settings: with the number of tokens that leave in each layer.
        cost: of the schedule, as a share of the dense model's: MACs, or time.
        distance: from the dense model on all images of the fitting, which chose it: on others it is somewhat larger.
        error: its standard error.
        usual: the schedule that stays unless another is surely nearer: the one that the settings ask for, or where it
            has too many steps "safe:K" of fewer.
        default: its distance on the same images; None if it does not meet the budget.
        measure: of the distance: "divergence" (nats), "squared_error" (a share), or the name of the caller's function.
        images: how many.
        seed: of the order of the images and of the search.
        runs: schedules that were measured.
        curves: distances where tokens leave in one layer alone.
    """

    settings: Settings
    cost: float
    distance: float
    error: float
    usual: str
    default: float | None
    measure: str
    images: int
    seed: int
    runs: int
    curves: tuple[Curve, ...]


def fit_schedule(model: Any, settings: Settings, images: Float[Tensor, "n 3 height width"], **options: Any) -> Settings:
    """Return the settings with the amounts of each layer, fitted to a model; as ``fit``, without its record."""
    return fit(model, settings, images, **options).settings


def fit(
    model: Any,
    settings: Settings,
    images: Float[Tensor, "n 3 height width"],
    *,
    seed: int = 0,
    max_steps: int | None = None,
    distance: Distance | None = None,
    metric: Own | None = None,
    forward: Forward | None = None,
    restore: bool = False,
    costs: Costs | None = None,
    seconds: float | None = None,
    progress: Progress = quiet,
) -> FittedSchedule:
    """Choose in which layers tokens leave, and how many, for the least distance from the dense model.

    Args:
        model: as for ``apply``; it is not patched afterwards.
        settings: of any method, with the budget: ``keep``, ``macs``, or the MACs that ``num_prop`` would leave; where
            their schedule takes up to 1 % of the dense MACs more, so may the fitted one. This schedule, or the usual
            one of their form where it is "fitted", is measured as well, and stays unless another is surely nearer;
            where it has more than ``max_steps`` steps, "safe" (with ``restore``, "inner") of as many stands in for it.
        images: preprocessed, (N, 3, H, W) float32, of the kind that the model will see; 32 to 64 serve, all different.
        seed: the same seed gives the same schedule.
        max_steps: layers that may reduce, at most (default: K of the schedule "fitted:K", else as many as pay).
        distance: from the dense and the reduced output of B images to (B,) numbers, 0 for equal ones (default: the
            divergence of class probabilities for logits, the relative squared error for other outputs).
        metric: the same as a function of numpy arrays, as ``gtp_runtime.evaluate`` takes it: its outputs are named
            "output". Give one of the two.
        forward: from images to the output, by the model: with a decoder behind it (default: the model itself).
        restore: as in ``apply``, for outputs of every patch.
        costs: what ``keep`` is a share of (default: MACs).
        seconds: stop improving after this time (default: when nothing improves).
        progress: called with the current task.

    Raises:
        ConfigError: fewer than 4 images, both ``distance`` and ``metric``, or a budget that no schedule of these steps
            meets.
        UnsupportedModelError: ``apply`` cannot patch the model.
    """
    if len(images) < 4:
        raise ConfigError(f"{len(images)} images do not show where tokens can leave: give at least 4, better 32")
    if metric is not None:
        if distance is not None:
            raise ConfigError("distance and metric both say how far outputs are apart: give one of the two")
        distance = distance_by(metric, OUTPUT)
    deadline = float("inf") if seconds is None else time.monotonic() + seconds
    max_steps, given = max_steps or most_steps(settings.schedule), settings
    settings = settings.uncalibrated()
    if is_fitted(settings.schedule):
        settings = replace(settings, schedule=usual_schedule(settings, restore))
    space = _space(model, settings, costs, max_steps)
    usual, asked = _asked(model, settings, space, CLOSE if costs is None else 0.0, restore)
    space = replace(space, budget=max([space.budget, *map(space.costs.backbone, asked)]))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    with SuffixRunner(model, settings, images[order], forward, restore) as runner:
        judge, every = _judge(runner, distance, progress), range(len(runner.chunks))
        count = max(1, min(len(every) // 2, CURVE_TOKENS // (len(runner.chunks[0]) * space.start)))
        search = Search(judge, space, every[:count], every, seed=seed, deadline=deadline, progress=progress)
        best = search.run(asked)
        default = judge.mean(asked[0], every) if asked else None
        if asked and not judge.surely_nearer(best, asked[0], every, SURE):
            best = asked[0]
        scores = judge.scores(best, every)
    return FittedSchedule(
        settings=given.resolved(best),
        cost=space.costs.backbone(best) / space.costs.dense,
        distance=scores.mean().item(),
        error=(scores.std() / len(scores) ** 0.5).item(),
        usual=usual,
        default=default,
        measure=judge.distance.__name__,
        images=len(images),
        seed=seed,
        runs=judge.runs,
        curves=search.curves,
    )


def usual_schedule(settings: Settings, restore: bool = False) -> str:
    """Return the schedule that settings have where nothing is fitted: that of GTP's preset, else "even".

    Args:
        settings: of any method.
        restore: for outputs of every patch.
    """
    preset = PRESETS.get(settings.uncalibrated().described().get("preset", ""), {})
    schedule = str(preset.get("schedule", "even"))
    return INNER if restore and schedule.startswith("safe") else schedule


def _judge(runner: SuffixRunner, distance: Distance | None, progress: Progress) -> Judge:
    dense = []
    for chunk in range(len(runner.chunks)):
        progress("running the dense model", chunk / len(runner.chunks))
        dense.append(runner.dense(chunk))
    return Judge(runner, dense, distance or distance_for(runner.model, dense[0]))


def _space(model: Any, settings: Settings, costs: Costs | None, max_steps: int | None) -> Space:
    shape = model_shape(model)
    costs = costs or ModelCosts(model, settings, shape)
    if settings.macs is not None:
        budget = settings.macs
    elif settings.keep is not None:
        budget = settings.keep * costs.dense
    else:
        budget = costs.backbone(make_plan(model, replace(settings, schedule=None)).num_prop)
    tile = tile_for(shape.patches + shape.num_prefix)
    return Space(settings, shape, costs, budget, tile, max_steps or shape.depth)


def _asked(model: Any, settings: Settings, space: Space, slack: float, restore: bool) -> tuple[str, list[Amounts]]:
    """Return the schedule that the settings ask for, or "safe" ("inner" for outputs of every patch) where that has too
    many steps, and its amounts within the budget and a share of the dense cost more; [] where neither fits.
    """
    usual = settings.schedule or "even"
    safe = [f"safe:{space.steps - 1}+aligned"] if space.steps > 1 else []  # the last layer is one more
    fewer = [f"inner:{space.steps}+aligned"] if restore else safe
    for schedule in (usual, *fewer):
        num_prop = _within(model, replace(settings, schedule=schedule), space, slack)
        if num_prop is not None and steps_of(num_prop) <= space.steps:
            return schedule, [num_prop]
    return usual, []


def _within(model: Any, settings: Settings, space: Space, slack: float) -> Amounts | None:
    """Return the amounts of a schedule within the budget and slack; None where there are none near it."""
    for less in LESS:
        share = space.budget / space.costs.dense - less
        try:
            num_prop = make_plan(model, replace(settings, num_prop=None, macs=None, keep=share)).num_prop
        except ConfigError:
            continue
        if space.costs.backbone(num_prop) <= space.budget + slack * space.costs.dense:
            return num_prop
    return None
