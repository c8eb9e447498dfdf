"""Every method takes away as many tokens as it says, batch or not, and comes off again."""

from typing import Any

import pytest
import torch
from helpers import images_for, prefixes, tiny_vit
from torch import Tensor, nn

from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.frame.patch import is_patched, remove, trace_tokens
from gtp_models.frame.trace import Step
from gtp_models.macs import cost
from gtp_models.methods.gtp.config import GTPConfig

methods = pytest.mark.parametrize("method", METHODS)
schedules = pytest.mark.parametrize("num_prop", [3, (0, 4, 2), (2, 0, 3), 0], ids=str)


def settings(num_prop: Any = 3, **others: Any) -> GTPConfig:
    return GTPConfig(num_prop=num_prop, num_neighbours=4, **others)


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
    model, config = tiny_vit(**prefix), settings(num_prop)
    assert apply_method(model, method, config) is model
    logits, trace = run(model, images_for(model, batch))
    assert logits.shape == (batch, 5)
    standing = [list(range(16))] * batch
    for step, amount, layer in zip(trace, config.schedule(3), cost(model, config, method).layers, strict=True):
        leaving = 0 if method == "dense" else amount
        means = [-1] if method == "mean" and leaving else []
        assert step.propagated.shape == (batch, leaving)
        assert layer.tokens_out == step.kept.shape[1] + model.num_prefix_tokens
        for before, kept, left in zip(standing, step.kept.tolist(), step.propagated.tolist(), strict=True):
            assert sorted(kept + left) == sorted(before + means)
        standing = step.kept.tolist()


@methods
@schedules
@prefixes
def test_one_image_equals_its_row_of_a_batch(method: str, num_prop: Any, prefix: dict[str, Any]) -> None:
    model = apply_method(tiny_vit(**prefix), method, settings(num_prop))
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
    apply_method(apply_method(model, "gtp", settings(1)), method, settings())  # in place of an earlier patch
    assert is_patched(model)
    assert list(model.state_dict()) == keys
    assert torch.equal(model(images), before) == (method == "dense")
    assert type(remove(model).blocks) is nn.Sequential
    assert torch.equal(model(images), before)


def test_drop_keeps_the_first_tokens_as_they_are() -> None:
    model = apply_method(tiny_vit(reg_tokens=1), "drop", settings((0, 4, 2)))
    _, trace = run(model, images_for(model))
    assert [step.kept.tolist() for step in trace] == [[list(range(count))] * 2 for count in (16, 12, 10)]
    assert trace[2].propagated.tolist() == [[10, 11]] * 2


def test_methods_differ() -> None:
    model = tiny_vit()
    images = images_for(model)
    answers = [run(apply_method(model, method, settings()), images)[0] for method in METHODS]
    for index, answer in enumerate(answers):
        assert all(not torch.allclose(answer, other, atol=1e-3) for other in answers[:index])


@pytest.mark.parametrize("method", ["drop", "tome", "dense"])
def test_settings_that_a_method_has_no_use_for_are_no_hindrance(method: str) -> None:
    model = tiny_vit(class_token=False, global_pool="avg")
    config = GTPConfig(num_prop=2, num_neighbours=99, selection="CLSAttnMax", sparsity=0.5)
    with_these, _ = run(apply_method(model, method, config), images_for(model))
    plain, _ = run(apply_method(model, method, settings(2)), images_for(model))
    assert torch.equal(with_these, plain)
    assert cost(model, config, method) == cost(model, settings(2), method)


@pytest.mark.parametrize("method", ["prune", "mean"])
def test_pruning_selects_as_it_is_told(method: str) -> None:
    model, images = tiny_vit(), images_for(tiny_vit())
    steps = [
        run(apply_method(model, method, settings(selection=name)), images)[1][0]
        for name in ("MixedAttnMax", "CosSimMean")
    ]
    assert not torch.equal(steps[0].propagated, steps[1].propagated)


@pytest.mark.parametrize("method", ["gtp", "drop", "prune", "tome"])
def test_too_many_tokens(method: str) -> None:
    propagation = "GraphProp" if method == "gtp" else "Mean"  # which would make room
    model = tiny_vit()
    with pytest.raises(ConfigError, match="at least one must stay"):
        apply_method(model, method, settings(6, propagation=propagation))
    assert not is_patched(model)


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no method is called 'evit': choose one of gtp, dense, drop, prune"):
        apply_method(tiny_vit(), "evit", settings())
    for method in METHODS:
        with pytest.raises(UnsupportedModelError):
            apply_method(nn.Linear(1, 1), method, settings())
