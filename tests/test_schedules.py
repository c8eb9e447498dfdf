"""Where tokens leave: shapes of schedules, and budgets in MACs."""

from dataclasses import replace
from typing import Any

import pytest
from helpers import METHOD_CASES, TINY_GTP, settings_of, tiny_vit

from gtp_models import Plan, make_plan
from gtp_models.errors import ConfigError
from gtp_models.methods.gtp.config import GTPConfig

DEEP = {"img_size": 64, "depth": 6}


def scheduled(kind: str | None, **budget: Any) -> Plan:
    budget = budget or {"keep": 0.75}
    return make_plan(tiny_vit(**DEEP), replace(TINY_GTP, num_prop=None, schedule=kind, **budget))


@pytest.mark.parametrize("kind", ["even", "early", "late", "every:2", "every:3", "aligned:4", "aligned:8"])
@pytest.mark.parametrize("budget", [0.9, 0.8])
def test_the_budget_is_met(kind: str, budget: float) -> None:
    assert abs(scheduled(kind, keep=budget).ratio - budget) < 0.02


def test_macs_and_a_share_say_the_same() -> None:
    dense = make_plan(tiny_vit(**DEEP), TINY_GTP).dense
    assert scheduled("even", keep=0.75) == scheduled("even", macs=0.75 * dense)
    assert scheduled(None, keep=0.75) == scheduled("even", keep=0.75), "the default"


def test_what_num_prop_takes_is_a_budget() -> None:
    model = tiny_vit(**DEEP)
    uniform = make_plan(model, GTPConfig(num_prop=5))
    late = make_plan(model, GTPConfig(num_prop=5, schedule="late"))
    assert late == make_plan(model, GTPConfig(macs=uniform.backbone, schedule="late"))
    assert abs(late.backbone - uniform.backbone) < 0.02 * uniform.dense
    assert late.num_prop != uniform.num_prop
    assert make_plan(model, GTPConfig(num_prop=5, schedule="even")).settings == GTPConfig(num_prop=5)
    with pytest.raises(ConfigError, match=r"num_prop=\[99, 99, .*at most 10 "):
        make_plan(model, GTPConfig(num_prop=99, schedule="late"))
    with pytest.raises(ConfigError, match="2 entries, .*6 layers"):
        make_plan(model, GTPConfig(num_prop=(1, 2), schedule="late"))


@pytest.mark.parametrize("method", [method for method in METHOD_CASES if method != "dense"])
@pytest.mark.parametrize("kind", ["early", "every:2", "aligned:4"])
def test_every_method_takes_a_schedule(method: str, kind: str) -> None:
    settings = replace(settings_of(method), num_prop=None, keep=0.8, schedule=kind)
    plan = make_plan(tiny_vit(**DEEP), settings)
    assert abs(plan.ratio - 0.8) < 0.02
    assert plan.settings == replace(settings_of(method), num_prop=plan.num_prop)


def test_shapes() -> None:
    even, early, late = (scheduled(kind).num_prop for kind in ("even", "early", "late"))
    assert max(even) - min(even) <= 1
    assert list(early) == sorted(early, reverse=True)
    assert late[-1] > late[0]
    every = scheduled("every:3").num_prop
    assert [bool(amount) for amount in every] == [False, False, True] * 2


def test_aligned_counts_are_multiples() -> None:
    counts = [layer.tokens_out for layer in scheduled("aligned:8").layers]
    assert all(count % 8 == 0 for count in counts if count < counts[0])


@pytest.mark.parametrize(("size", "tile"), [(112, 8), (64, 4), (48, 1)])
def test_aligned_chooses_what_suits_tokens_and_budget(size: int, tile: int) -> None:
    plans = [
        make_plan(tiny_vit(img_size=size, depth=12), GTPConfig.measured(keep=0.74, schedule=kind))
        for kind in ("steps:2+aligned", f"steps:2+aligned:{tile}")
    ]
    assert plans[0] == plans[1]
    assert abs(plans[0].ratio - 0.74) < 0.01


@pytest.mark.parametrize("kind", ["steep", "every", "every:0", "aligned:x", "even:2", "safe:", "safe:0", "safe:x"])
def test_unknown_kinds(kind: str) -> None:
    with pytest.raises(ConfigError, match="even.*steps:K"):
        scheduled(kind)


def test_a_budget_out_of_reach() -> None:
    with pytest.raises(ConfigError, match=r"every:6 .* M of"):
        scheduled("every:6", keep=0.3)


def test_steps_fall_on_different_layers() -> None:
    assert sum(amount > 0 for amount in scheduled("steps:4", keep=0.8).num_prop) == 4
    for kind in ("steps:5", "steps:6", "steps:99+aligned"):
        with pytest.raises(ConfigError, match="6 layers .*steps:4"):
            scheduled(kind, keep=0.8)


def reducing(depth: int, kind: str = "safe", **budget: Any) -> dict[int, int]:
    """Return the amounts by layer, of a model of 64 patches."""
    settings = GTPConfig.measured(**(budget or {"keep": 0.75}) | {"schedule": kind})
    plan = make_plan(tiny_vit(img_size=64, depth=depth), settings)
    return {layer: amount for layer, amount in enumerate(plan.num_prop) if amount}


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(12, [2, 3, 5, 7, 9, 11]), (24, [4, 7, 11, 14, 18, 23]), (8, [1, 2, 3, 4, 6, 7]), (6, [1, 2, 3, 4, 5])]
    + [(3, [1, 2]), (2, [0, 1]), (1, [0])],
)
def test_safe_scales_with_the_depth(depth: int, layers: list[int]) -> None:
    amounts = reducing(depth)
    assert list(amounts) == layers
    *steps, last = amounts.values()
    if depth > 3:
        assert max(steps) - min(steps) <= 1 and last == round(2 * sum(steps) / len(steps))


def test_inner_is_safe_without_the_last_layer() -> None:
    for count in ("", ":3"):
        assert [*reducing(12, f"inner{count}")] == [*reducing(12, f"safe{count}")][:-1]
    with pytest.raises(ConfigError, match="inner:9.*12 layers.*inner:8"):
        reducing(12, "inner:9")


def test_safe_takes_its_number_of_steps_and_tiles() -> None:
    assert list(reducing(12, "safe:3")) == [2, 5, 9, 11]
    amounts = reducing(12, "safe+aligned:4")
    assert list(amounts) == [2, 3, 5, 7, 9, 11] and not any(amount % 4 for amount in list(amounts.values())[1:])
    with pytest.raises(ConfigError, match="safe:9.*12 layers.*safe:8"):
        reducing(12, "safe:9")


@pytest.mark.parametrize("keep", [0.9, 0.6, 0.5])
def test_safe_meets_strong_budgets(keep: float) -> None:
    """The last layer never takes what steps before it need."""
    amounts = reducing(12, keep=keep)
    plan = make_plan(tiny_vit(img_size=64, depth=12), GTPConfig.measured(keep=keep))
    assert abs(plan.ratio - keep) < 0.02 and sum(amounts.values()) < 64
