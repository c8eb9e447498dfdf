from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from helpers import TINY_GTP, images_for, tiny_vit, variants
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn

from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.frame.patch import is_patched, remove, trace_tokens
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.blocks import GTPBlocks
from gtp_models.methods.gtp.config import GTPConfig


def test_apply_in_place_and_again() -> None:
    model = tiny_vit()
    blocks, keys = list(model.blocks), list(model.state_dict())
    assert apply(model, TINY_GTP) is model
    assert apply(model, GTPConfig(num_prop=2)) is model
    assert model.blocks.config == GTPConfig(num_prop=2)
    assert list(model.state_dict()) == keys
    assert all(ours is theirs for ours, theirs in zip(model.blocks, blocks, strict=True))


def test_a_refused_setting_leaves_the_patch_as_it_was() -> None:
    model = apply(tiny_vit(), TINY_GTP)
    with pytest.raises(ConfigError):
        apply(model, GTPConfig(num_prop=99))
    assert model.blocks.config == TINY_GTP


@variants
def test_remove_restores(overrides: dict[str, Any]) -> None:
    model = tiny_vit(**overrides)
    images, keys = images_for(model), list(model.state_dict())
    before = model(images)
    patched = apply(model, TINY_GTP)(images)
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
    assert torch.equal(model(images), apply(model, replace(TINY_GTP, num_prop=num_prop))(images))


def test_leading_layers_without_propagation_are_timm() -> None:
    model, seen = tiny_vit(), []
    model.blocks[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = images_for(model)
    model(images)
    apply(model, replace(TINY_GTP, num_prop=(0, 0, 3)))(images)
    assert torch.equal(seen[0], seen[1])


@variants
@pytest.mark.parametrize("propagation", ["GraphProp", "None", "Mean"])
@pytest.mark.parametrize("token_scale", [True, False])
def test_one_image_equals_its_row_of_a_batch(overrides: dict[str, Any], propagation: Any, token_scale: bool) -> None:
    model = tiny_vit(**overrides)
    apply(model, replace(TINY_GTP, propagation=propagation, token_scale=token_scale))
    images = images_for(model, 3)
    with trace_tokens(model) as together:
        logits = model(images)
    for row in range(3):
        with trace_tokens(model) as alone:
            torch.testing.assert_close(model(images[row : row + 1])[0], logits[row], rtol=0, atol=5e-5)
        for one, three in zip(alone, together, strict=True):
            assert torch.equal(one.kept[0], three.kept[row])
            assert torch.equal(one.propagated[0], three.propagated[row])


@pytest.mark.parametrize("training", [True, False])
def test_training_flags_are_kept(training: bool) -> None:
    model = tiny_vit().train(training)
    model.blocks[1].train(not training)
    for change in (lambda: apply(model, TINY_GTP), lambda: remove(model)):
        change()
        assert model.blocks.training is training
        assert [block.training for block in model.blocks] == [training, not training, training]


def test_a_slice_of_the_blocks_is_plain() -> None:
    model = apply(tiny_vit(), TINY_GTP)
    first = model.blocks[:2]
    assert type(first) is nn.Sequential
    assert list(first) == [model.blocks[0], model.blocks[1]]
    assert isinstance(model.blocks, GTPBlocks)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: timm.create_model("test_resnet"), r"ResNet cannot be patched.*timm's Eva and VisionTransformer"),
        (lambda: tiny_vit(block_fn=ParallelScalingBlock), r"blocks of ParallelScalingBlock"),
        (lambda: tiny_vit(num_heads=2, attn_layer="diff"), r"DiffAttention cannot be patched.*timm\.layers\.Attention"),
        (lambda: tiny_vit(dynamic_img_size=True), r"dynamic_img_size=True.*create it with img_size"),
    ],
)
def test_unsupported(model: Any, reason: str) -> None:
    built = model()
    with pytest.raises(UnsupportedModelError, match=reason):
        apply(built)
    assert not is_patched(built)


def test_class_attention_needs_a_class_token() -> None:
    model = tiny_vit(class_token=False, global_pool="avg", reg_tokens=1)
    with pytest.raises(ConfigError, match=r"CLSAttnMax.*class token.*MixedAttnMax"):
        apply(model, GTPConfig(num_prop=1, selection="CLSAttnMax"))


def test_gradient_checkpointing_would_bypass_gtp() -> None:
    model = tiny_vit()
    model.set_grad_checkpointing()
    with pytest.raises(UnsupportedModelError, match="set_grad_checkpointing"):
        apply(model)
