"""Every method takes away as many tokens as it says, batch or not, and comes off again."""

import copy
import pickle
from typing import Any

import pytest
import torch
from helpers import METHOD_CASES, images_for, methods, prefixes, settings_of, tiny_vit
from torch import Tensor, nn

from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.frame.patch import is_patched, remove, trace_tokens
from gtp_models.frame.trace import Step
from gtp_models.methods import METHODS, make_settings
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.plan import make_plan
from gtp_models.recipes import Recipe

schedules = pytest.mark.parametrize("num_prop", [3, (0, 4, 2), (2, 0, 3), 0], ids=str)


@torch.inference_mode()
def run(model: Any, images: Tensor) -> tuple[Tensor, list[Step]]:
    with trace_tokens(model) as trace:
        logits = model(images)
    return logits, list(trace)


@methods
@schedules
@prefixes
@pytest.mark.parametrize("batch", [1, 3])
def test_counts(method: str, num_prop: Any, prefix: dict[str, Any], batch: int) -> None:
    model = tiny_vit(**prefix)
    plan = make_plan(model, settings_of(method, num_prop))
    assert apply(model, plan) is model
    assert model.blocks.num_prop == plan.num_prop
    logits, trace = run(model, images_for(model, batch))
    assert logits.shape == (batch, 5)
    standing = [list(range(16))] * batch
    given = num_prop if isinstance(num_prop, tuple) else (num_prop,) * 3
    for step, amount, layer in zip(trace, given, plan.layers, strict=True):
        leaving = 0 if method == "dense" else amount
        means = [-1] if method == "gtp-Mean" and leaving else []
        assert step.propagated.shape == (batch, leaving) == (batch, layer.num_prop)
        assert layer.tokens_in == len(standing[0]) + model.num_prefix_tokens
        assert layer.tokens_out == step.kept.shape[1] + model.num_prefix_tokens
        for before, kept, left in zip(standing, step.kept.tolist(), step.propagated.tolist(), strict=True):
            assert sorted(kept + left) == sorted(before + means)
        standing = step.kept.tolist()


@methods
@schedules
@prefixes
def test_one_image_equals_its_row_of_a_batch(method: str, num_prop: Any, prefix: dict[str, Any]) -> None:
    model = apply(tiny_vit(**prefix), settings_of(method, num_prop))
    images = images_for(model, 3)
    logits, together = run(model, images)
    for row in range(3):
        one, alone = run(model, images[row : row + 1])
        torch.testing.assert_close(one[0], logits[row], rtol=0, atol=5e-5)
        for ours, theirs in zip(alone, together, strict=True):
            assert torch.equal(ours.kept[0], theirs.kept[row])
            assert torch.equal(ours.propagated[0], theirs.propagated[row])


@methods
@prefixes
def test_comes_off(method: str, prefix: dict[str, Any]) -> None:
    model = tiny_vit(**prefix)
    images, keys = images_for(model), list(model.state_dict())
    before = model(images)
    apply(apply(model, settings_of("gtp", 1)), settings_of(method))  # in place of an earlier patch
    assert is_patched(model)
    assert list(model.state_dict()) == keys
    assert torch.equal(model(images), before) == (method == "dense")
    assert type(remove(model).blocks) is nn.Sequential
    assert torch.equal(model(images), before)


@pytest.mark.parametrize("method", [*METHOD_CASES, "measured"])
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_copies_answer_the_same(method: str, pool: str) -> None:
    settings = GTPConfig.measured(num_prop=(0, 4, 2)) if method == "measured" else settings_of(method)
    model = apply(tiny_vit(global_pool=pool), settings)
    images = images_for(model)
    answers = model(images)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(images), answers)
        remove(again)
        assert torch.equal(model(images), answers), "the copy stands by itself"
        assert torch.equal(again(images), tiny_vit(global_pool=pool)(images))


def test_drop_keeps_the_first_tokens_as_they_are() -> None:
    model = apply(tiny_vit(reg_tokens=1), settings_of("drop", (0, 4, 2)))
    _, trace = run(model, images_for(model))
    assert [step.kept.tolist() for step in trace] == [[list(range(count))] * 2 for count in (16, 12, 10)]
    assert trace[2].propagated.tolist() == [[10, 11]] * 2


def test_methods_differ() -> None:
    model = tiny_vit()
    images = images_for(model)
    answers = [run(apply(model, settings_of(method)), images)[0] for method in METHOD_CASES]
    for index, answer in enumerate(answers):
        assert all(not torch.allclose(answer, other, atol=1e-3) for other in answers[:index])


@pytest.mark.parametrize("method", ["drop", "tome", "dense"])
def test_settings_that_a_method_has_no_use_for_are_no_hindrance_in_a_recipe(method: str) -> None:
    model = tiny_vit(class_token=False, global_pool="avg")
    gtp = {"num_neighbours": 99, "selection": "CLSAttnMax", "sparsity": 0.5}
    settings = Recipe("tiny", "", "", {"num_prop": 2} | gtp).settings(method)
    plain = settings_of(method, 2)
    assert settings == plain
    assert torch.equal(
        run(apply(model, settings), images_for(model))[0], run(apply(model, plain), images_for(model))[0]
    )
    assert make_plan(model, settings) == make_plan(model, plain)
    for name, value in gtp.items():
        with pytest.raises(ConfigError, match=f"{method} .*{name}: .*num_prop"):
            make_settings(method, **{name: value})


@pytest.mark.parametrize("method", ["gtp-None", "gtp-Mean"])
def test_pruning_selects_as_it_is_told(method: str) -> None:
    model, images = tiny_vit(), images_for(tiny_vit())
    steps = [
        run(apply(model, settings_of(method, selection=name)), images)[1][0] for name in ("MixedAttnMax", "CosSimMean")
    ]
    assert not torch.equal(steps[0].propagated, steps[1].propagated)


@pytest.mark.parametrize(
    ("method", "left", "layer", "most"),
    [("gtp", 4, 2, 3), ("drop", 4, 2, 3), ("gtp-None", 4, 2, 3), ("gtp-Mean", 6, 2, 5), ("tome", 10, 1, 5)],
)
def test_too_many_tokens(method: str, left: int, layer: int, most: int) -> None:
    """Six of 16 tokens are to leave in each of three layers."""
    model, name = tiny_vit(), METHOD_CASES[method][0]
    said = rf"removes 6 of the {left} image tokens left in layer {layer} .*: {name} takes at most {most} there; with"
    with pytest.raises(ConfigError, match=said):
        apply(model, settings_of(method, 6))
    assert not is_patched(model)


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method='evit'.*dense, drop, gtp, tome"):
        make_settings("evit")
    for gone in ("prune", "mean"):
        with pytest.raises(ConfigError, match=f"method='{gone}' is unknown"):
            make_settings(gone, num_prop=3)
    for method in METHODS.names():
        with pytest.raises(UnsupportedModelError):
            apply(nn.Linear(1, 1), settings_of(method))
