"""Tokens put back on the grid: against a slow restatement, and by what must hold."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from eva_models import EVAS, tiny_eva
from helpers import PREFIXES, TINY_GTP, images_for, methods, settings_of, tiny_vit, variants
from torch import Tensor

from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.fitting import fit
from gtp_models.frame import restore as restoring
from gtp_models.frame.patch import remove, trace_tokens
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import GTPConfig

STEPS = (4, 0, 5)  # of 16 patches
MERGING = GTPConfig(num_prop=STEPS, selection="Regeneration", graph="Nearest", propagation="MergeNorm")


def slowly(model: Any, images: Tensor, zero: bool = False) -> Tensor:
    """Return the features of all places, put back one by one; the model is patched without ``restore``."""
    with trace_tokens(model) as steps:
        features = model.forward_features(images)
    prefix = model.num_prefix_tokens
    columns = model.patch_embed.grid_size[1]
    places = [torch.cat([rows[:prefix], torch.zeros(steps[0].kept.shape[1], rows.shape[1])]) for rows in features]
    restored = torch.stack([torch.zeros(prefix + model.patch_embed.num_patches, rows.shape[1]) for rows in places])
    for image, rows in enumerate(features):
        kept = steps[-1].kept[image].tolist()
        standing: dict[int, int] = {}
        for step in steps:
            if step.received_by is not None:
                standing |= dict(zip(step.propagated[image].tolist(), step.received_by[image].tolist(), strict=True))
        merges = all(step.received_by is not None for step in steps if step.propagated.numel())
        restored[image, :prefix] = rows[:prefix]
        for patch in range(model.patch_embed.num_patches):
            place = patch
            if merges:
                while place in standing:
                    place = standing[place]
            elif patch not in kept:
                apart = [(p // columns - patch // columns) ** 2 + (p % columns - patch % columns) ** 2 for p in kept]
                apart = [distance if p >= 0 else 10**6 for distance, p in zip(apart, kept, strict=True)]
                place = kept[apart.index(min(apart))]
            if place == patch or not zero:
                restored[image, prefix + patch] = rows[prefix + kept.index(place)]
    return restored


@methods
@pytest.mark.parametrize("count", [1, 3])
def test_equal_to_the_slow_restatement(method: str, count: int) -> None:
    model = tiny_vit(reg_tokens=1)
    images = images_for(model, count)
    expected = slowly(apply(model, settings_of(method, STEPS)), images)
    apply(model, settings_of(method, STEPS), restore=True)
    assert torch.equal(model.forward_features(images), expected)


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=list(PREFIXES))
@pytest.mark.parametrize("method", ["gtp-measured", "gtp-Mean", "tome"])
def test_prefix_tokens_are_untouched(prefix: dict[str, Any], method: str) -> None:
    model = tiny_vit(**prefix, img_size=(32, 48))
    images, settings = images_for(model, 2), settings_of(method, STEPS)
    expected = slowly(apply(model, settings), images)
    assert torch.equal(apply(model, settings, restore=True).forward_features(images), expected)


@variants
def test_without_reduction_nothing_changes(overrides: dict[str, Any]) -> None:
    model = tiny_vit(**overrides)
    images = images_for(model)
    expected = model(images), model.forward_features(images), model.forward_intermediates(images, indices=[0, 2])[1]
    apply(model, replace(TINY_GTP, num_prop=0), restore=True)
    assert torch.equal(model(images), expected[0])
    assert torch.equal(model.forward_features(images), expected[1])
    layers = model.forward_intermediates(images, indices=[0, 2])[1]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(layers, expected[2], strict=True))


@variants
def test_the_answers_stay(overrides: dict[str, Any]) -> None:
    """Pooling over all patches is pooling weighted by size."""
    model = tiny_vit(**overrides)
    images = images_for(model)
    expected = apply(model, MERGING)(images)
    torch.testing.assert_close(apply(model, MERGING, restore=True)(images), expected, rtol=1e-4, atol=1e-5)


def test_a_patch_equals_its_representative() -> None:
    model = apply(tiny_vit(), MERGING, restore=True)
    images = images_for(model, 2)
    with trace_tokens(model) as steps:
        patches = model.forward_features(images)[:, model.num_prefix_tokens :]
    last = steps[-1]
    assert last.received_by is not None
    for image in range(2):
        assert torch.equal(patches[image, last.propagated[image]], patches[image, last.received_by[image]])


@pytest.mark.parametrize("name", EVAS)
def test_intermediates_of_eva(name: str) -> None:
    model = tiny_eva(name)
    images = images_for(model)
    dense = model.forward_intermediates(images, indices=[0, 2])
    expected = slowly(apply(model, MERGING), images)
    apply(model, MERGING, restore=True)
    final, layers = model.forward_intermediates(images, indices=[0, 2])
    assert [layer.shape for layer in layers] == [layer.shape for layer in dense[1]]
    assert torch.equal(final, expected)
    assert torch.equal(final, model.forward_features(images))
    assert not torch.equal(layers[0], dense[1][0])
    assert torch.equal(remove(model).forward_intermediates(images, indices=[0, 2])[0], dense[0])


def test_intermediates_are_those_of_the_patched_blocks() -> None:
    model = tiny_vit()
    images = images_for(model)
    dense = model.get_intermediate_layers(images, n=3, reshape=True, norm=True)
    apply(model, replace(MERGING, num_prop=(0, 4, 0)), restore=True)
    layers = model.get_intermediate_layers(images, n=3, reshape=True, norm=True)
    assert [layer.shape for layer in layers] == [(2, 24, 4, 4)] * 3
    torch.testing.assert_close(layers[0], dense[0])
    assert len(torch.unique(layers[1][0].flatten(1), dim=1).T) == 12
    assert len(torch.unique(dense[1][0].flatten(1), dim=1).T) == 16
    only = model.forward_intermediates(images, indices=[1], stop_early=True, intermediates_only=True, norm=True)
    assert torch.equal(only[0], layers[1])


def test_a_grid_is_refused_where_tokens_are_not_put_back() -> None:
    model = apply(tiny_vit(), MERGING)
    with pytest.raises(UnsupportedModelError, match="restore=True"):
        model.get_intermediate_layers(images_for(model), n=1)


def test_absent_patches_can_stay_away() -> None:
    model = tiny_vit(final_norm=False)
    images = images_for(model)
    settings = settings_of("gtp-None", STEPS)
    expected = slowly(apply(model, settings), images, zero=True)
    features = apply(model, settings, restore="zero").forward_features(images)
    assert torch.equal(features, expected)
    assert (features == 0).all(-1).sum(-1).tolist() == [9, 9]
    with pytest.raises(ConfigError, match="nearest"):
        apply(model, settings, restore="far")  # type: ignore[arg-type]


def test_long_orders_are_inverted_without_a_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    model = apply(tiny_vit(), MERGING, restore=True)
    images = images_for(model, 3)
    sorted_ones = model(images)
    monkeypatch.setattr(restoring, "LONGEST_SORT", 1)
    assert torch.equal(model(images), sorted_ones)


def test_a_copy_is_patched_too_and_gradients_flow() -> None:
    model = apply(tiny_vit(), MERGING, restore=True)
    images = images_for(model)
    twin = copy.deepcopy(model)
    assert torch.equal(twin.forward_intermediates(images)[0], model.forward_intermediates(images)[0])
    assert twin.forward_intermediates.model is twin
    model.forward_intermediates(images, indices=[2], intermediates_only=True)[0].sum().backward()
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("layers", [[], [0, 2]])
def test_a_schedule_is_fitted_to_what_is_put_back(layers: list[int]) -> None:
    model = tiny_vit()
    images, settings = images_for(model, 8), replace(MERGING, num_prop=None, keep=0.8, schedule="fitted")

    def maps(batch: Tensor) -> Tensor:
        if not layers:
            return model.forward_features(batch)
        return torch.cat(model.get_intermediate_layers(batch, n=layers), 1)

    with torch.no_grad():
        dense = maps(images)
        result = fit(model, settings, images, forward=maps, restore=True)
        apply(model, result.settings, restore=True)
        reduced = maps(images)
    error = (reduced - dense).square().sum((1, 2)) / dense.square().sum((1, 2))
    assert result.distance == pytest.approx(float(error.mean()), rel=1e-4)
