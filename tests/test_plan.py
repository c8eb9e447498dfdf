"""The plan: its MACs are those that torch counts, and its tokens those that leave."""

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import timm
import torch
from helpers import METHOD_CASES, fitted, images_for, methods, settings_of, tiny_vit
from timm.models.deit import VisionTransformerDistilled
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.frame.patch import remove, trace_tokens
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.gtp.graphs import GRAPHS
from gtp_models.methods.gtp.propagations import PROPAGATIONS
from gtp_models.methods.gtp.selections import SELECTIONS
from gtp_models.plan import make_plan

GAP = {"class_token": False, "global_pool": "avg"}


def counted(model: Any, batch: int) -> float:
    for block in model.blocks:
        block.attn.fused_attn = False  # torch counts fused attention otherwise
    if model.attn_pool is not None:
        model.attn_pool.fused_attn = False
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.requires_grad_(False)(images_for(model, batch))
    return counter.get_total_flops() / 2 / batch


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("overrides", "settings"),
    [
        ({}, {}),
        ({}, {"token_scale": False}),
        ({}, {"sparsity": 0.6}),
        ({}, {"graph": "Spatial"}),
        ({}, {"graph": "Semantic"}),
        ({}, {"propagation": "None", "graph": "None"}),
        ({}, {"propagation": "Mean"}),
        ({}, {"selection": "CosSimMax"}),
        ({}, {"num_prop": (0, 4, 0)}),
        ({}, {"num_prop": (0, 4, 0), "selection": "CosSimMax", "token_scale": False}),
        ({}, {"num_prop": 0}),
        (GAP, {}),
        ({"reg_tokens": 3}, {"num_prop": (1, 2, 3)}),
        ({"img_size": (32, 48)}, {}),
        ({"scale_attn_norm": True, "qk_norm": True, "init_values": 0.5}, {}),
        ({"num_classes": 0}, {}),
        ({"kind": VisionTransformerDistilled}, {}),
        ({"global_pool": "map"}, {}),
        ({**GAP, "global_pool": "map"}, {}),
    ],
)
def test_against_torchs_counter(overrides: dict[str, Any], settings: dict[str, Any], batch: int) -> None:
    model = tiny_vit(**overrides)
    config = GTPConfig(**{"num_prop": 3, "num_neighbours": 4} | settings)
    expected = make_plan(model, config)
    assert expected.dense == counted(model, batch)
    apply(model, expected)
    assert make_plan(model, config) == expected
    assert expected.total == expected.backbone + expected.method_macs == counted(model, batch)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("num_prop", [3, (0, 4, 2), (7, 0, 3), 0])
@pytest.mark.parametrize("overrides", [{}, GAP, {"reg_tokens": 1}, {"reg_tokens": 4, "img_size": (24, 40)}])
@methods
def test_every_method_against_torchs_counter(method: str, overrides: dict[str, Any], num_prop: Any, batch: int) -> None:
    model = tiny_vit(**overrides)
    expected = make_plan(model, settings_of(method, num_prop, selection="CosSimMax"))
    assert expected.total == counted(apply(model, expected), batch)


AXES: list[dict[str, Any]] = [
    *({"selection": selection, "graph": graph} for selection in SELECTIONS.names() for graph in ("Mixed", "Nearest")),
    *({"graph": graph, "propagation": name} for graph in GRAPHS.names() for name in PROPAGATIONS.names()),
]


def accepted(axes: dict[str, Any]) -> bool:
    """Whether ``GTPConfig`` takes these: ``test_registry`` knows which it must."""
    try:
        return bool(GTPConfig(**axes))
    except ConfigError:
        return False


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("token_scale", [True, False])
@pytest.mark.parametrize("sparsity", [1.0, 0.6])
@pytest.mark.parametrize("axes", [axes for axes in AXES if accepted(axes)], ids=str)
def test_every_axis_against_torchs_counter(
    axes: dict[str, Any], sparsity: float, token_scale: bool, batch: int
) -> None:
    model = tiny_vit(reg_tokens=1)
    token_scale |= axes.get("propagation") in ("Merge", "MergeNorm")  # which needs it
    config = GTPConfig(num_prop=(0, 4, 2), num_neighbours=4, sparsity=sparsity, token_scale=token_scale, **axes)
    expected = make_plan(model, fitted(model, config))
    assert expected.total == counted(apply(model, expected), batch)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("method", ["measured", "tome"])
@pytest.mark.parametrize("num_prop", [(0, 4, 2), 0])
@pytest.mark.parametrize("pool", ["token", "avg", "avgmax", "max", "map", "prr"])
@pytest.mark.parametrize("overrides", [{}, {"class_token": False}, {"reg_tokens": 1, "pool_include_prefix": True}])
def test_pooling_by_size_against_torchs_counter(
    overrides: dict[str, Any], pool: str, num_prop: Any, method: str, batch: int
) -> None:
    if pool == "token" and not overrides.get("class_token", True):
        return
    model = tiny_vit(global_pool=pool, **overrides)
    settings = GTPConfig.measured(num_prop=num_prop) if method == "measured" else settings_of(method, num_prop)
    expected = make_plan(model, settings)
    assert expected.total == counted(apply(model, expected), batch)
    averages = pool in ("avg", "avgmax") or (pool == "prr" and not model.has_class_token)
    assert (expected.pooling > 0) == (num_prop != 0 and averages)


def test_deit_s() -> None:
    with torch.device("meta"):
        model = timm.create_model("deit_small_patch16_224")
    ours = make_plan(model, GTPConfig(num_prop=8))
    assert round(ours.backbone / 1e9, 3) == 3.416
    assert round(ours.dense / 1e9, 3) == 4.599
    assert round(ours.method_macs / 1e9, 3) == 0.020
    assert [layer.tokens_in for layer in ours.layers] == list(range(197, 101, -8))
    assert ours.layers[-1].tokens_out == 101


def test_layers() -> None:
    layers = make_plan(tiny_vit(), GTPConfig(num_prop=(0, 4, 2), num_neighbours=4)).layers
    assert [(layer.tokens_in, layer.tokens_out) for layer in layers] == [(17, 17), (17, 13), (13, 11)]
    assert layers[0].method_macs == 0
    assert layers[1].method_macs == 13 * 4 * 25


def test_without_tokens_that_leave_it_is_dense() -> None:
    ours = make_plan(tiny_vit(), GTPConfig(num_prop=0))
    assert ours.total == ours.dense
    assert ours.method_macs == 0


def test_what_apply_refuses_has_no_make_plan() -> None:
    with pytest.raises(UnsupportedModelError):
        make_plan(tiny_vit(dynamic_img_size=True), GTPConfig(num_prop=1))
    with pytest.raises(ConfigError):
        make_plan(tiny_vit(), GTPConfig(num_prop=99))
    with pytest.raises(ConfigError):
        make_plan(tiny_vit(**GAP), GTPConfig(num_prop=1, selection="CLSAttnMean"))


def test_the_model_is_left_alone() -> None:
    model = tiny_vit()
    make_plan(model, GTPConfig(num_prop=1))
    assert remove(model) is model
    assert type(model.blocks) is torch.nn.Sequential


def test_a_plan_is_frozen() -> None:
    plan = make_plan(tiny_vit(), GTPConfig(num_prop=3, num_neighbours=4))
    for part, name in ((plan, "settings"), (plan, "layers"), (plan.layers[0], "macs"), (plan.shape, "grid")):
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, getattr(part, name))
    assert isinstance(plan.layers, tuple)
    assert hash(plan) == hash(make_plan(tiny_vit(), GTPConfig(num_prop=3, num_neighbours=4)))


@methods
def test_settings_are_resolved(method: str) -> None:
    """What a plan holds as settings gives the same plan again, without the model's MACs."""
    plan = make_plan(tiny_vit(), settings_of(method, (0, 4, 2)))
    assert plan.settings.num_prop == (0 if method == "dense" else (0, 4, 2))
    assert plan.num_prop == ((0, 0, 0) if method == "dense" else (0, 4, 2))
    assert make_plan(tiny_vit(), plan.settings) == plan


@pytest.mark.parametrize("method", [method for method in METHOD_CASES if method != "dense"])
def test_a_share_of_the_macs(method: str) -> None:
    model = tiny_vit(img_size=64, depth=6)
    none = settings_of(method, 0)
    dense = make_plan(model, none).dense
    for settings in (replace(none, num_prop=None, keep=0.8), replace(none, num_prop=None, macs=0.8 * dense)):
        plan = make_plan(model, settings)
        assert abs(plan.ratio - 0.8) < 0.02
        assert plan.backbone / plan.dense == plan.ratio
        assert (plan.settings.keep, plan.settings.macs, plan.settings.schedule) == (None, None, None)
        assert plan.settings.num_prop == plan.num_prop
        with trace_tokens(apply(model, plan)) as trace:
            model(images_for(model))
        assert [step.propagated.shape[1] for step in trace] == list(plan.num_prop)
