import re
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from helpers import images_for, tiny_vit
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock
from torch import nn

from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.gtp.blocks import GTPBlocks, run_block, token_counts
from gtp_models.gtp.config import GTPConfig
from gtp_models.gtp.graph import edges
from gtp_models.gtp.patch import apply, is_patched, remove, trace_tokens
from gtp_models.gtp.propagation import propagate
from gtp_models.gtp.tokens import Tokens

CONFIG = GTPConfig(num_prop=3, num_neighbours=4, sparsity=0.7)
VARIANTS: dict[str, dict[str, Any]] = {
    "class token": {},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 3},
    "only registers": {"class_token": False, "global_pool": "avg", "reg_tokens": 3},
    "distilled": {"kind": VisionTransformerDistilled},
    "not square": {"img_size": (32, 48)},
    "layer scale": {"init_values": 0.5},
    "qk_norm": {"qk_norm": True},
    "attention norm": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "no qkv bias": {"qkv_bias": False},
    "pre-norm": {"pre_norm": True, "no_embed_class": True},
    "attention pool": {"global_pool": "map"},
    "no classes": {"num_classes": 0},
}
variants = pytest.mark.parametrize("overrides", VARIANTS.values(), ids=list(VARIANTS))


def test_apply_in_place_and_again() -> None:
    model = tiny_vit()
    blocks, keys = list(model.blocks), list(model.state_dict())
    assert apply(model, CONFIG) is model
    assert apply(model, GTPConfig(num_prop=2)) is model
    assert model.blocks.config == GTPConfig(num_prop=2)
    assert list(model.state_dict()) == keys
    assert all(ours is theirs for ours, theirs in zip(model.blocks, blocks, strict=True))


def test_a_refused_setting_leaves_the_patch_as_it_was() -> None:
    model = apply(tiny_vit(), CONFIG)
    with pytest.raises(ConfigError):
        apply(model, GTPConfig(num_prop=99))
    assert model.blocks.config == CONFIG


@variants
def test_remove_restores(overrides: dict[str, Any]) -> None:
    model = tiny_vit(**overrides)
    images, keys = images_for(model), list(model.state_dict())
    before = model(images)
    patched = apply(model, CONFIG)(images)
    assert patched.shape == before.shape
    assert not torch.equal(patched, before)
    assert remove(model) is remove(model) is model
    assert type(model.blocks) is nn.Sequential
    assert list(model.state_dict()) == keys
    assert torch.equal(model(images), before)


@variants
@pytest.mark.parametrize("num_prop", [0, (0, 0, 0)])
def test_without_propagation_it_is_timm(overrides: dict[str, Any], num_prop: Any) -> None:
    model = tiny_vit(**overrides)
    images = images_for(model)
    assert torch.equal(model(images), apply(model, replace(CONFIG, num_prop=num_prop))(images))


def test_leading_layers_without_propagation_are_timm() -> None:
    model, seen = tiny_vit(), []
    hook = model.blocks[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = images_for(model)
    model(images)
    apply(model, replace(CONFIG, num_prop=(0, 0, 3)))(images)
    hook.remove()
    assert torch.equal(seen[0], seen[1])


@variants
def test_own_blocks_equal_timms(overrides: dict[str, Any]) -> None:
    model = tiny_vit(**overrides)
    blocks, x = model.blocks, torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(0))
    ours = run_block(blocks[1], Tokens(x.flatten(0, 1), 2, 1), 0, CONFIG).tokens.x
    torch.testing.assert_close(ours.view_as(x), blocks[1](x), rtol=0, atol=2e-5)


@variants
@pytest.mark.parametrize("propagation", ["GraphProp", "None", "Mean"])
@pytest.mark.parametrize("token_scale", [True, False])
def test_one_image_equals_its_row_of_a_batch(overrides: dict[str, Any], propagation: Any, token_scale: bool) -> None:
    model = tiny_vit(**overrides)
    apply(model, replace(CONFIG, propagation=propagation, token_scale=token_scale))
    images = images_for(model, 3)
    with trace_tokens(model) as together:
        logits = model(images)
    for row in range(3):
        with trace_tokens(model) as alone:
            torch.testing.assert_close(model(images[row : row + 1])[0], logits[row], rtol=0, atol=5e-5)
        for one, all_ in zip(alone, together, strict=True):
            assert one.kept[0].tolist() == all_.kept[row].tolist()
            assert one.propagated[0].tolist() == all_.propagated[row].tolist()


@pytest.mark.parametrize("training", [True, False])
def test_training_flags_are_kept(training: bool) -> None:
    model = tiny_vit().train(training)
    model.blocks[1].train(not training)
    for change in (lambda: apply(model, CONFIG), lambda: remove(model)):
        change()
        assert model.blocks.training is training
        assert [block.training for block in model.blocks] == [training, not training, training]


def test_drop_path_drops_whole_images() -> None:
    model = tiny_vit(drop_path_rate=0.5).train()
    apply(model, CONFIG)(images_for(model)).sum().backward()
    x = torch.randn(32, 17, 24, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        config = replace(CONFIG, propagation="None", sparsity=1.0)
        tokens = run_block(model.blocks[2], Tokens(x.flatten(0, 1), 32, 1), 4, config).tokens
    assert tokens.ids is not None
    before = x.gather(1, tokens.ids[..., None].expand(-1, -1, 24))
    unchanged = (tokens.x.view(32, 13, 24) == before).all(-1)
    assert 0 < unchanged.all(1).sum() == unchanged.any(1).sum() < 32


def test_a_slice_of_the_blocks_is_plain() -> None:
    model = apply(tiny_vit(), CONFIG)
    first = model.blocks[:2]
    assert type(first) is nn.Sequential
    assert list(first) == [model.blocks[0], model.blocks[1]]
    assert isinstance(model.blocks, GTPBlocks)


def test_token_counts() -> None:
    model = apply(tiny_vit(reg_tokens=2), replace(CONFIG, num_prop=(0, 4, 2)))
    assert token_counts(model.blocks) == [(19, 19), (19, 15), (15, 13)]


@pytest.mark.parametrize("propagation", ["GraphProp", "None", "Mean"])
def test_propagate_one_layer(propagation: str) -> None:
    x, scale, weights = torch.randn(2, 6, 4), torch.rand(2, 1, 6), torch.rand(2, 6, 6)
    orders = torch.tensor([[0, 3, 1, 5, 2, 4], [0, 1, 2, 5, 4, 3]])
    tokens = Tokens(x.flatten(0, 1), 2, 1, None, scale, weights.mT)
    ours, left = propagate(tokens, orders, 2, propagation)
    assert torch.equal(left, orders[:, 4:])
    assert ours.ids is not None
    assert ours.scale is not None
    for image, (kept, out) in enumerate(zip(orders[:, :4], orders[:, 4:], strict=True)):
        expected, scales, ids = x[image, kept], scale[image, 0, kept], kept.tolist()
        if propagation == "GraphProp":
            received = edges(weights[image].mT, out, kept).mT
            expected, scales = expected + received @ x[image, out], scales + received @ scale[image, 0, out]
        if propagation == "Mean":
            expected = torch.cat([expected, x[image, out].mean(0, keepdim=True)])
            scales, ids = torch.cat([scales, scale[image, 0, out].mean(0, keepdim=True)]), [*ids, 0]  # 0 - prefix: -1
        torch.testing.assert_close(ours.x.view(2, -1, 4)[image], expected)
        torch.testing.assert_close(ours.scale[image, 0], scales)
        assert ours.ids[image].tolist() == ids


def test_token_scale_matters() -> None:
    model = tiny_vit()
    images = images_for(model)
    on, off = (apply(model, replace(CONFIG, token_scale=value))(images) for value in (True, False))
    assert not torch.allclose(on, off)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: timm.create_model("test_resnet"), "ResNet cannot be patched.*timm's VisionTransformer"),
        (lambda: tiny_vit(block_fn=ResPostBlock), "blocks of ResPostBlock cannot be patched.*vision_transformer.Block"),
        (lambda: tiny_vit(block_fn=ParallelScalingBlock), "blocks of ParallelScalingBlock"),
        (lambda: tiny_vit(num_heads=2, attn_layer="diff"), "DiffAttention cannot be patched.*timm.layers.Attention"),
        (lambda: tiny_vit(dynamic_img_size=True), re.escape("dynamic_img_size=True") + ".*create it with img_size"),
    ],
)
def test_unsupported(model: Any, reason: str) -> None:
    built = model()
    with pytest.raises(UnsupportedModelError, match=reason):
        apply(built)
    assert not is_patched(built)


def test_class_attention_needs_a_class_token() -> None:
    model = tiny_vit(class_token=False, global_pool="avg", reg_tokens=1)
    with pytest.raises(ConfigError, match="CLSAttnMax.*class token.*MixedAttnMax"):
        apply(model, GTPConfig(num_prop=1, selection="CLSAttnMax"))


def test_gradient_checkpointing_would_bypass_gtp() -> None:
    model = tiny_vit()
    model.set_grad_checkpointing()
    with pytest.raises(UnsupportedModelError, match="set_grad_checkpointing"):
        apply(model)


def steps_match(trace: list[Any], start: int) -> None:
    standing = torch.arange(start).expand(len(trace[0].kept), -1)
    for step in trace:
        assert {value.device.type for value in (step.kept, step.propagated, step.gap)} == {"cpu"}
        together = torch.cat([step.kept, step.propagated], 1).sort(1).values
        assert torch.equal(together, standing)
        standing = step.kept.sort(1).values


@variants
def test_trace(overrides: dict[str, Any]) -> None:
    model = apply(tiny_vit(**overrides), replace(CONFIG, num_prop=(0, 4, 0)))
    with trace_tokens(model) as trace:
        model(images_for(model))
    assert [step.propagated.shape for step in trace] == [(2, 0), (2, 4), (2, 0)]
    assert trace[0].gap.tolist() == trace[2].gap.tolist() == [torch.inf] * 2
    assert (trace[1].gap > 0).all()
    assert torch.equal(trace[1].kept, trace[2].kept)
    steps_match(trace, model.patch_embed.num_patches)


def test_trace_without_any_propagation() -> None:
    model = apply(tiny_vit(), GTPConfig(num_prop=0))
    with trace_tokens(model) as trace:
        model(images_for(model, 1))
    assert [step.kept.tolist() for step in trace] == [[list(range(16))]] * 3


def test_trace_of_mean() -> None:
    model = apply(tiny_vit(), replace(CONFIG, num_prop=5, propagation="Mean"))
    with trace_tokens(model) as trace:
        model(images_for(model))
    assert [step.kept.shape[1] for step in trace] == [12, 8, 4]
    assert trace[0].kept[:, -1].tolist() == [-1, -1]
    assert not (trace[0].propagated == -1).any()
    assert [after + 1 for _, after in [(16, 12), (12, 8), (8, 4)]] == [after for _, after in token_counts(model.blocks)]


def test_recordings_are_independent() -> None:
    one, other = apply(tiny_vit(), CONFIG), apply(tiny_vit(depth=2), CONFIG)
    with trace_tokens(one) as outer:
        with trace_tokens(one) as inner, trace_tokens(other) as beside:
            one(images_for(one))
            other(images_for(other))
        assert len(outer) == len(inner) == 3
        assert len(beside) == 2
        one(images_for(one, batch=1))
    assert len(outer[0].kept) == 1
    assert len(inner[0].kept) == 2
    one(images_for(one, batch=3))
    assert len(outer[0].kept) == 1


def test_only_a_patched_model_is_traced() -> None:
    with pytest.raises(UnsupportedModelError, match="call gtp_export.apply"), trace_tokens(tiny_vit()):
        pass
