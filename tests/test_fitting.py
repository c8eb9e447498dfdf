"""Schedules that are fitted to a model by measuring."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
from eva_models import tiny_eva
from helpers import images_for, noise_of, settings_of, tiny_vit
from torch import Tensor

from gtp_models import ConfigError, GTPConfig, Settings, apply, fit_schedule, make_plan, make_settings, remove
from gtp_models.fitting import FittedSchedule, fit
from gtp_models.fitting.curves import Curve, Curves
from gtp_models.fitting.distances import Judge, distance_for, divergence, divergence_by_class, squared_error
from gtp_models.fitting.search import Search
from gtp_models.fitting.space import TimeCosts
from gtp_models.fitting.suffix import SuffixRunner
from gtp_models.plan import model_shape

DEEP = {"img_size": 40, "depth": 5}  # 25 patches
IMAGES = 8


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few schedules are measured: the models are small, and so is what there is to gain."""
    monkeypatch.setattr("gtp_models.fitting.search.MEASURED", 10)


def fitted(model: Any, settings: Settings | None = None, **options: Any) -> FittedSchedule:
    return fit(model, settings or GTPConfig.measured(keep=0.7), images_for(model, IMAGES), **options)


@cache
def base() -> FittedSchedule:
    return fitted(tiny_vit(**DEEP))


def steps(num_prop: Any) -> int:
    return sum(amount > 0 for amount in num_prop)


def measured(model: Any, settings: Settings, distance: Any = divergence) -> float:
    """Return the mean distance on the images of the fitting, the plain way."""
    images = images_for(model, IMAGES)
    with torch.inference_mode():
        dense = model(images)
        reduced = apply(model, settings)(images)
        remove(model)
    return float(distance(dense, reduced).mean())


@pytest.mark.parametrize("method", ["gtp", "gtp-measured", "gtp-Mean", "tome", "drop"])
@pytest.mark.parametrize("family", [tiny_vit, tiny_eva])
def test_a_resumed_run_is_a_run(method: str, family: Any) -> None:
    model = family()
    images = images_for(model, 8)
    settings = settings_of(method, num_prop=(0, 3, 2)[: len(model.blocks)])
    with torch.inference_mode():
        expected = apply(model, settings)(images)
        dense = remove(model)(images)
        with SuffixRunner(model, settings, images) as runner:
            chunks = range(len(runner.chunks))
            first = torch.cat([runner.dense(chunk) for chunk in chunks])
            resumed = torch.cat([runner.run(make_plan(model, settings).num_prop, chunk) for chunk in chunks])
        after = model(images)
    torch.testing.assert_close(first, dense, rtol=0, atol=1e-5)
    torch.testing.assert_close(resumed, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(after, dense, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["gtp-measured", "tome"])
def test_the_budget_is_kept_and_the_default_is_no_better(method: str) -> None:
    model = tiny_vit(**DEEP)
    settings = replace(settings_of(method), num_prop=None, keep=0.7, schedule="steps:2+aligned")
    found = fitted(model, settings)
    plan = make_plan(model, found.settings)
    assert plan.ratio == pytest.approx(found.cost) and 0.68 < plan.ratio <= 0.71
    assert found.distance == pytest.approx(measured(model, found.settings), abs=1e-6)
    assert found.default is not None and found.distance <= found.default
    assert (found.measure, found.images) == ("divergence", IMAGES)
    assert plan.settings == found.settings == make_plan(model, found.settings).settings


def test_the_same_seed_gives_the_same_schedule() -> None:
    model = tiny_vit(**DEEP)
    torch.manual_seed(1)
    assert fitted(model, seed=0) == base()
    torch.manual_seed(2)
    assert fit_schedule(model, GTPConfig.measured(keep=0.7), images_for(model, IMAGES)) == base().settings


@pytest.mark.parametrize(("most", "usual"), [(1, None), (2, "safe:1+aligned"), (3, "safe:2+aligned")])
def test_no_more_steps_than_asked_for(most: int, usual: str | None) -> None:
    """What stays unless another is surely nearer has no more steps either."""
    model = tiny_vit(**DEEP)
    found = fitted(model, GTPConfig.measured(keep=0.7, schedule=f"fitted:{most}"))
    assert 1 <= steps(found.settings.num_prop) <= most
    assert (found.default is None) == (usual is None) and found.usual == (usual or "safe+aligned")


def test_budgets_in_macs_and_tokens() -> None:
    model = tiny_vit(**DEEP)
    dense = make_plan(model, make_settings("dense")).dense
    assert fitted(model, GTPConfig.measured(macs=0.7 * dense)).settings == base().settings
    uniform, default = (make_plan(model, form(num_prop=3)) for form in (GTPConfig.paper, GTPConfig.measured))
    plan = make_plan(model, fitted(model, GTPConfig.measured(num_prop=3)).settings)
    assert uniform.backbone < default.backbone and plan.backbone <= default.backbone, "one percent more at most"


@pytest.mark.parametrize(
    "overrides", [{"num_classes": 0}, {"num_classes": 0, "class_token": False, "global_pool": "avg", "fc_norm": True}]
)
def test_features_are_judged_by_their_squared_error(overrides: dict[str, Any]) -> None:
    model = tiny_vit(**DEEP | overrides)
    found = fitted(model)
    assert found.measure == "squared_error"
    assert found.distance == pytest.approx(measured(model, found.settings, squared_error), rel=1e-3)


def test_a_distance_and_an_output_of_the_callers() -> None:
    model = tiny_vit(**DEEP)

    def largest(dense: Tensor, reduced: Tensor) -> Tensor:
        return (dense - reduced).abs().amax(1)

    found = fitted(model, distance=largest, forward=lambda images: 2 * model(images))
    assert found.measure == "largest"
    assert found.distance == pytest.approx(2 * measured(model, found.settings, largest), rel=1e-3)


def test_a_metric_of_the_callers() -> None:
    model = tiny_vit(**DEEP)

    def largest(dense: Any, reduced: Any, labels: Any) -> Any:
        assert labels is None
        return np.abs(dense["output"] - reduced["output"]).max(1)

    found = fitted(model, metric=largest)
    assert found.measure == "largest"
    assert found.distance == pytest.approx(measured(model, found.settings, lambda one, two: (one - two).abs().amax(1)))
    with pytest.raises(ConfigError):
        fitted(model, metric=largest, distance=squared_error)


def test_a_layer_that_costs_nothing_is_chosen() -> None:
    """The class token alone is read: what leaves behind the last attention is not missed."""
    assert fitted(tiny_vit(**DEEP), GTPConfig.measured(keep=0.93)).settings.num_prop[-1] > 0  # type: ignore[index]


def test_a_budget_of_time() -> None:
    model = tiny_vit(**DEEP)
    settings, shape = GTPConfig.measured(keep=0.8), model_shape(model)
    costs = TimeCosts(settings, shape, block=lambda tokens: tokens / 1000, step=lambda tokens, amount: 0.001, rest=0.01)
    found = fitted(model, settings, costs=costs)
    assert costs.backbone(found.settings.num_prop) <= 0.8 * costs.dense  # type: ignore[arg-type]
    dear = replace(costs, step=lambda tokens, amount: 0.03)
    assert steps(fitted(model, settings, costs=dear).settings.num_prop) == 1


def test_the_record_has_the_curves_of_every_layer() -> None:
    curves = base().curves
    assert [curve.layer for curve in curves] == list(range(5))
    assert {len(curve.amounts) - len(curve.distances) for curve in curves} == {0}


def test_the_usual_schedule_stays_unless_another_is_surely_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gtp_models.fitting.SURE", float("inf"))
    found = fitted(tiny_vit(**DEEP))
    assert found.distance == found.default


def test_time_ends_the_search() -> None:
    assert fitted(tiny_vit(**DEEP), seconds=1e-9).runs < base().runs


def test_layers_without_a_curve_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time was up before they were measured, and a little is left for schedules."""
    curves = Search._measured_curves
    monkeypatch.setattr(Search, "_measured_curves", lambda search: list(curves(search))[1:3])
    found = fitted(tiny_vit(**DEEP), GTPConfig.measured(keep=0.8), max_steps=1)
    assert [curve.layer for curve in found.curves] == [1, 2]
    assert {layer for layer, amount in enumerate(found.settings.num_prop) if amount} <= {1, 2}  # type: ignore[arg-type]


def test_progress_is_reported() -> None:
    tasks = []
    fitted(tiny_vit(**DEEP), progress=lambda task, share=None: tasks.append(task))
    assert len(set(tasks)) >= 3


@pytest.mark.parametrize(("images", "keep"), [(2, 0.7), (8, 0.1)])
def test_what_cannot_be_fitted(images: int, keep: float) -> None:
    model = tiny_vit(**DEEP)
    with pytest.raises(ConfigError):
        fit(model, GTPConfig.measured(keep=keep), noise_of(images, 3, 40, 40))


def test_curves_add_up_by_what_has_left_before() -> None:
    curves = Curves([Curve(0, (4, 8, 16), (0.1, 0.4, 1.6)), Curve(2, (4, 16), (0.01, 0.04))], depth=3, tokens=25)
    assert curves.predicted((8, 0, 0)) == pytest.approx(0.4)
    assert curves.predicted((6, 0, 0)) == pytest.approx(0.1 * 1.5**2)
    assert curves.predicted((2, 0, 0)) == pytest.approx(0.1 * 0.5**2)
    assert curves.predicted((4, 0, 4)) == pytest.approx(0.1 + 0.02 - 0.01)
    assert curves.predicted((0, 0, 0)) == 0


def test_measured_schedules_correct_the_predictions() -> None:
    """A layer that costs four times what its curve says, and one schedule that shows nothing new."""
    curves = Curves([Curve(0, (4, 8), (0.1, 0.2)), Curve(1, (4, 8), (0.1, 0.2))], depth=2, tokens=25)
    measured = [((4, 0), 0.1), ((8, 0), 0.2), ((0, 4), 0.4), ((0, 8), 0.8)]
    curves.learn(measured, 1e-6)
    assert curves.predicted((0, 6)) > 2 * curves.predicted((6, 0))
    assert curves.predicted((6, 0)) == pytest.approx(0.15, rel=0.25)
    curves.learn([((4, 0), 0.1)], 1e-6)
    assert curves.predicted((0, 4)) == pytest.approx(0.1, rel=0.1), "what was learned before is given again"
    curves.learn([((4, 0), 0.0), ((0, 4), 0.0)], 1e-6)
    assert 0 < curves.predicted((0, 4)) < 0.1


def test_few_images_with_a_long_tail_do_not_decide() -> None:
    """One image has most of the distance: what is nearer on all others is nearer, if it is so on average as well."""
    scores = {(1,): torch.full((16,), 0.2), (2,): torch.full((16,), 0.1), (3,): torch.full((16,), 0.1)}
    scores[1,][0], scores[2,][0], scores[3,][0] = 3.0, 2.9, 6.0

    class Outputs:
        def run(self, num_prop: tuple[int, ...], chunk: int) -> Tensor:
            return scores[num_prop]

    judge = Judge(Outputs(), [torch.zeros(16)], lambda dense, reduced: reduced)  # type: ignore[arg-type]
    assert judge.surely_nearer((2,), (1,), [0], 2)
    assert not judge.surely_nearer((3,), (1,), [0], 2)
    assert judge.level((1,), [0]) < judge.mean((1,), [0])


@pytest.mark.parametrize(
    ("name", "logits"), [("vit_base_patch16_clip_224.openai", False), ("vit_tiny_patch16_224", True)]
)
def test_the_distance_of_a_projection_is_that_of_features(name: str, logits: bool) -> None:
    model = timm.create_model(name, embed_dim=32, depth=1, num_heads=2)
    assert (distance_for(model, torch.zeros(2, model.num_classes)) is divergence) == logits


def test_the_divergence_of_several_labels_is_that_of_each() -> None:
    dense, reduced = torch.randn(2, 3, 5, dtype=torch.float64)
    apart = [torch.distributions.Bernoulli(logits=logits) for logits in (dense, reduced)]
    expected = torch.distributions.kl_divergence(*apart).sum(-1)
    torch.testing.assert_close(divergence_by_class(dense, reduced), expected)
