from typing import Any

import pytest
import timm
import torch
from gtp_models.rivals import METHODS, apply_method
from helpers import images_for, tiny_vit
from timm.models.deit import VisionTransformerDistilled
from torch.utils.flop_counter import FlopCounterMode

from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.frame.patch import apply, remove
from gtp_models.macs import cost
from gtp_models.methods.gtp.config import GTPConfig

GAP = {"class_token": False, "global_pool": "avg"}


def counted(model: Any, batch: int) -> float:
    for block in model.blocks:
        block.attn.fused_attn = False  # torch counts fused attention otherwise
    if model.attn_pool is not None:
        model.attn_pool.fused_attn = False
    with FlopCounterMode(display=False) as counter:
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
    expected = cost(model, config)
    assert expected.dense == counted(model, batch)
    apply(model, config)
    assert cost(model, config) == expected
    assert expected.total == expected.backbone + expected.gtp == counted(model, batch)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("num_prop", [3, (0, 4, 2), (7, 0, 3), 0])
@pytest.mark.parametrize("overrides", [{}, GAP, {"reg_tokens": 1}, {"reg_tokens": 4, "img_size": (24, 40)}])
@pytest.mark.parametrize("method", METHODS)
def test_rivals_against_torchs_counter(method: str, overrides: dict[str, Any], num_prop: Any, batch: int) -> None:
    model, config = tiny_vit(**overrides), GTPConfig(num_prop=num_prop, num_neighbours=4, selection="CosSimMax")
    expected = cost(model, config, method)
    assert expected.total == counted(apply_method(model, method, config), batch)


def test_deit_s() -> None:
    with torch.device("meta"):
        model = timm.create_model("deit_small_patch16_224")
    ours = cost(model, GTPConfig(num_prop=8))
    assert round(ours.backbone / 1e9, 3) == 3.416
    assert round(ours.dense / 1e9, 3) == 4.599
    assert round(ours.gtp / 1e9, 3) == 0.020
    assert [layer.tokens_in for layer in ours.layers] == list(range(197, 101, -8))
    assert ours.layers[-1].tokens_out == 101


def test_layers() -> None:
    layers = cost(tiny_vit(), GTPConfig(num_prop=(0, 4, 2), num_neighbours=4)).layers
    assert [(layer.tokens_in, layer.tokens_out) for layer in layers] == [(17, 17), (17, 13), (13, 11)]
    assert layers[0].gtp_macs == 0
    assert layers[1].gtp_macs == 13 * 4 * 25


def test_without_tokens_that_leave_it_is_dense() -> None:
    ours = cost(tiny_vit(), GTPConfig(num_prop=0))
    assert ours.total == ours.dense
    assert ours.gtp == 0


def test_what_apply_refuses_has_no_cost() -> None:
    with pytest.raises(UnsupportedModelError):
        cost(tiny_vit(dynamic_img_size=True), GTPConfig(num_prop=1))
    with pytest.raises(ConfigError):
        cost(tiny_vit(), GTPConfig(num_prop=99))
    with pytest.raises(ConfigError):
        cost(tiny_vit(**GAP), GTPConfig(num_prop=1, selection="CLSAttnMean"))


def test_the_model_is_left_alone() -> None:
    model = tiny_vit()
    cost(model, GTPConfig(num_prop=1))
    assert remove(model) is model
    assert type(model.blocks) is torch.nn.Sequential
