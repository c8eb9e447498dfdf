from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import TINY_GTP, images_for, tiny_vit, variants

from gtp_models.errors import UnsupportedModelError
from gtp_models.frame.patch import trace_tokens
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import GTPConfig


@variants
def test_one_step_a_layer(overrides: dict[str, Any]) -> None:
    model = apply(tiny_vit(**overrides), replace(TINY_GTP, num_prop=(0, 4, 0)))
    with trace_tokens(model) as trace:
        model(images_for(model))
    assert [step.propagated.shape for step in trace] == [(2, 0), (2, 4), (2, 0)]
    assert trace[0].gap.tolist() == trace[2].gap.tolist() == [torch.inf] * 2
    assert (trace[1].gap > 0).all()
    assert torch.equal(trace[1].kept, trace[2].kept)


@variants
@pytest.mark.parametrize("propagation", ["GraphProp", "None"])
def test_what_stands_stays_or_leaves(overrides: dict[str, Any], propagation: Any) -> None:
    model = apply(tiny_vit(**overrides), replace(TINY_GTP, propagation=propagation))
    with trace_tokens(model) as trace:
        model(images_for(model))
    standing = torch.arange(model.patch_embed.num_patches).expand(2, -1)
    for step in trace:
        assert {value.device.type for value in (step.kept, step.propagated, step.gap)} == {"cpu"}
        assert torch.equal(torch.cat([step.kept, step.propagated], 1).sort(1).values, standing)
        standing = step.kept.sort(1).values


def test_without_any_propagation() -> None:
    model = apply(tiny_vit(), GTPConfig(num_prop=0))
    with trace_tokens(model) as trace:
        model(images_for(model, 1))
    assert [step.kept.tolist() for step in trace] == [[list(range(16))]] * 3


def test_mean_adds_a_token_without_a_place() -> None:
    model = apply(tiny_vit(), replace(TINY_GTP, num_prop=5, propagation="Mean"))
    with trace_tokens(model) as trace:
        model(images_for(model))
    assert [step.kept.shape for step in trace] == [(2, 12), (2, 8), (2, 4)]
    assert [step.propagated.shape for step in trace] == [(2, 5)] * 3
    for step in trace:
        assert step.kept[:, -1].tolist() == [-1, -1]
    assert (trace[0].kept == -1).sum() == 2
    assert (trace[0].propagated >= 0).all()


def test_recordings_are_independent() -> None:
    one, other = apply(tiny_vit(), TINY_GTP), apply(tiny_vit(depth=2), TINY_GTP)
    with trace_tokens(one) as outer:
        with trace_tokens(one) as inner, trace_tokens(other) as beside:
            one(images_for(one))
            other(images_for(other))
        assert len(outer) == len(inner) == 3
        assert len(beside) == 2
        one(images_for(one, 1))
    one(images_for(one, 3))
    assert [len(trace[0].kept) for trace in (outer, inner, beside)] == [1, 2, 2]


def test_only_a_patched_model_is_traced() -> None:
    with pytest.raises(UnsupportedModelError, match=r"call gtp_export\.apply"), trace_tokens(tiny_vit()):
        pass
