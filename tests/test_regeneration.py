"""Measured regeneration against a slow restatement in float64, and by what must hold whatever the tokens are."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers import PREFIXES, images_for, noise_of, prefixes, tiny_vit
from torch import Tensor

from gtp_models import ConfigError, GTPConfig, apply, make_plan, make_settings, remove, trace_tokens
from gtp_models.frame.attention import AttentionOutput
from gtp_models.frame.tokens import Tokens
from gtp_models.frame.trace import Layer
from gtp_models.methods.gtp.blocks import GTPBlocks
from gtp_models.methods.gtp.selections import compared_pairs, row_blocks
from gtp_models.methods.settings import ModelShape

LEAVING = 5
PAIRS = [("Nearest", "Merge"), ("Nearest", "MergeNorm"), ("Nearest", "GraphProp"), ("Mixed", "GraphProp")]


def layer(
    x: Tensor, sizes: Tensor | None, num_prefix: int, amount: int = LEAVING, propagation: str = "MergeNorm"
) -> Layer:
    """Run one reduction on (B, tokens, dim) tokens with (B, tokens) sizes."""
    batch, count, dim = x.shape
    shape = ModelShape((1, count - num_prefix), num_prefix, bool(num_prefix), dim, (1,), dim)
    config = GTPConfig.measured(num_prop=(amount,), propagation=propagation)
    blocks = GTPBlocks(torch.nn.Sequential(torch.nn.Identity()), config, shape, (amount,))
    scale = None if sizes is None else (sizes[:, None] if batch > 1 else sizes)
    tokens = Tokens(x.reshape(-1, dim), batch, num_prefix, scale=scale)
    unread = torch.zeros(*tokens.axes, 1, count, count)
    return blocks.reduce(tokens, AttentionOutput(tokens.x, unread, unread), amount)


def slow(
    x: np.ndarray, sizes: np.ndarray, num_prefix: int, amount: int, propagation: str
) -> tuple[dict[int, int], np.ndarray, np.ndarray]:
    """Return who leaves into whom, and tokens and sizes by place, as docs/method.md states the form; float64."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    places = range(num_prefix, len(x))
    cost = {i: (1 - max(unit[i] @ unit[j] for j in places if j < i)) * sizes[i] for i in places if i > num_prefix}
    leaving = sorted(cost, key=lambda i: (cost[i], -i))[:amount]
    staying = [i for i in places if i not in leaving]
    into = {i: max(staying, key=lambda j: unit[i] @ unit[j]) for i in leaving}
    mass, total, length = sizes.copy(), x * sizes[:, None], np.linalg.norm(x, axis=1) * sizes
    for i, j in into.items():
        mass[j] += sizes[i]
        total[j] += x[i] * sizes[i]
        length[j] += np.linalg.norm(x[i]) * sizes[i]
    tokens = total / mass[:, None]
    if propagation == "MergeNorm":
        tokens *= (length / mass / np.linalg.norm(tokens, axis=1))[:, None]
    return into, tokens, mass


def random_tokens(batch: int, num_prefix: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    sizes = 1 + noise_of(batch, 12 + num_prefix, seed=seed + 1).abs().round()
    return noise_of(batch, 12 + num_prefix, 6, seed=seed), sizes


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("num_prefix", [0, 1, 3])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("propagation", ["Merge", "MergeNorm"])
def test_against_the_slow_restatement(batch: int, num_prefix: int, seed: int, propagation: str) -> None:
    x, sizes = random_tokens(batch, num_prefix, seed)
    after = layer(x, sizes, num_prefix, propagation=propagation)
    kept, scale = after.tokens.x.view(batch, -1, 6), after.tokens.sizes()
    assert after.left is not None and after.receivers is not None and after.tokens.ids is not None and scale is not None
    ids, left, receivers = (part.reshape(batch, -1) for part in (after.tokens.ids, after.left, after.receivers))
    for image in range(batch):
        values, weights = x[image].double().numpy(), sizes[image].double().numpy()
        into, tokens, mass = slow(values, weights, num_prefix, LEAVING, propagation)
        assert dict(zip(left[image].tolist(), receivers[image].tolist(), strict=True)) == into
        np.testing.assert_allclose(kept[image].numpy(), tokens[ids[image]], atol=1e-5)
        np.testing.assert_allclose(scale[image].numpy(), mass[ids[image]], rtol=1e-6)


@pytest.mark.parametrize("num_prefix", [0, 1, 3])
def test_mass_and_the_mean_weighted_by_size_are_conserved(num_prefix: int) -> None:
    x, sizes = random_tokens(2, num_prefix)
    after = layer(x, sizes, num_prefix, propagation="Merge").tokens
    scale = after.sizes()
    assert scale is not None
    torch.testing.assert_close(scale.sum(1), sizes.sum(1))
    before = (x * sizes[..., None])[:, num_prefix:].sum(1)
    kept = (after.x.view(2, -1, 6) * scale[..., None])[:, num_prefix:].sum(1)
    torch.testing.assert_close(kept, before, rtol=0, atol=1e-4)
    torch.testing.assert_close(after.x.view(2, -1, 6)[:, :num_prefix], x[:, :num_prefix])


def test_identical_tokens_merge_first_and_one_of_them_stays() -> None:
    x = torch.eye(10)[None].repeat(1, 1, 1)
    x[0, 7], x[0, 9], x[0, 4] = 3 * x[0, 2], x[0, 5], x[0, 2]
    after = layer(x, None, 0, amount=3)
    assert after.left is not None and after.receivers is not None
    assert dict(zip(after.left.tolist(), after.receivers.tolist(), strict=True)) == {7: 2, 4: 2, 9: 5}
    assert after.gap is not None and after.gap.item() == pytest.approx(1)


def test_a_tie_keeps_the_token_that_stands_first() -> None:
    x = torch.ones(1, 6, 4)
    after = layer(x, None, 1, amount=2)
    assert after.left is not None and after.receivers is not None
    assert (sorted(after.left.tolist()), set(after.receivers.tolist())) == ([4, 5], {1})


def test_zero_tokens_stay_finite() -> None:
    after = layer(torch.zeros(1, 8, 4), None, 1)
    assert torch.isfinite(after.tokens.x).all()


def test_the_order_of_tokens_that_are_far_apart_changes_nothing() -> None:
    x = torch.eye(12)[None].clone()
    x[0, 9:] = x[0, :3] + 0.1 * torch.eye(12)[9:]  # each near to one of the first
    order = torch.tensor([0, 1, 2, 8, 4, 6, 3, 7, 5, 9, 10, 11])  # those in between are near to nobody
    first, second = layer(x, None, 0, amount=3), layer(x[:, order], None, 0, amount=3)
    assert first.left is not None and second.left is not None and second.receivers is not None
    assert sorted(order[second.left].tolist()) == sorted(first.left.tolist()) == [9, 10, 11]
    assert order[second.receivers].tolist() == [value - 9 for value in order[second.left].tolist()]


@prefixes
@pytest.mark.parametrize("batch", [1, 3])
def test_in_a_model(prefix: dict[str, Any], batch: int) -> None:
    model = tiny_vit(**prefix)
    images = images_for(model, batch)
    apply(model, GTPConfig.measured(num_prop=(0, 4, 3)))
    with torch.inference_mode(), trace_tokens(model) as trace:
        answers = model(images)
    standing = [set(range(16))] * batch
    for step in trace[1:]:
        assert step.received_by is not None
        rows = zip(standing, step.kept.tolist(), step.propagated.tolist(), step.received_by.tolist(), strict=True)
        for before, kept, left, receivers in rows:
            assert set(kept) | set(left) == before
            assert set(receivers) <= set(kept)
            assert min(before) in kept, "the first image token never leaves"
        standing = [set(kept) for kept in step.kept.tolist()]
    assert trace[0].received_by is None
    assert torch.isfinite(answers).all()


@pytest.mark.parametrize("pool", ["avg", "avgmax", "map", "token"])
@pytest.mark.parametrize("method", ["measured", "tome"])
def test_merging_identical_patches_changes_no_answer(pool: str, method: str) -> None:
    """With every patch the same, sizes alone tell merged tokens apart: attention and pooling must weigh by them."""
    model = tiny_vit(global_pool=pool, pos_embed="none", reg_tokens=1)
    images = noise_of(2, 3, 8, 8).repeat(1, 1, 4, 4)
    before = model(images)
    settings = (
        GTPConfig.measured(num_prop=(5, 0, 4)) if method == "measured" else make_settings("tome", num_prop=(5, 0, 4))
    )
    torch.testing.assert_close(apply(model, settings)(images), before, rtol=0, atol=2e-5)
    torch.testing.assert_close(remove(model)(images), before)


@pytest.mark.parametrize("pool", ["avg", "map"])
def test_pooling_weighs_by_size(pool: str) -> None:
    """Two kinds of patches in unequal numbers: the plain mean over what is left would be another."""
    model = tiny_vit(global_pool=pool, pos_embed="none", class_token=False)
    patches = noise_of(2, 3, 8, 8)
    images = patches[(torch.arange(16) < 3).long()].view(4, 4, 3, 8, 8).permute(2, 0, 3, 1, 4).reshape(1, 3, 32, 32)
    before = model(images)
    after = apply(model, GTPConfig.measured(num_prop=(7, 0, 6)))(images)
    torch.testing.assert_close(after, before, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"propagation": "Merge", "graph": "Mixed"}, "propagation='Merge' needs a graph that gives each token one"),
        ({"propagation": "Merge", "graph": "Nearest", "token_scale": False}, "stores sizes in token_scale"),
        ({"propagation": "Merge", "graph": "None"}, "choose graph='Nearest'"),
    ],
)
def test_what_means_nothing_together_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GTPConfig(**settings)


@pytest.mark.parametrize("selection", ["MixedAttnMax", "Regeneration", "DiagAttnMean"])
@pytest.mark.parametrize(
    ("graph", "propagation"), [("Nearest", "Merge"), ("Nearest", "GraphProp"), ("Mixed", "GraphProp")]
)
@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=list(PREFIXES))
def test_axes_mix(selection: str, graph: str, propagation: str, prefix: dict[str, Any]) -> None:
    model = tiny_vit(**prefix)
    images = images_for(model, 3)
    apply(model, GTPConfig(3, num_neighbours=4, selection=selection, graph=graph, propagation=propagation))
    together = model(images)
    for row in range(3):
        torch.testing.assert_close(model(images[row : row + 1])[0], together[row], rtol=0, atol=5e-5)


def test_presets_take_amounts_in_each_form() -> None:
    model = tiny_vit(depth=6)
    dense = make_plan(model, GTPConfig(0)).dense
    amounts: list[dict[str, Any]] = [{"keep": 0.8}, {"num_prop": 1}, {"macs": 0.8 * dense}]
    plans = [make_plan(model, GTPConfig.measured(**amount)) for amount in amounts]
    for plan in plans:
        assert [index for index, amount in enumerate(plan.num_prop) if amount] == [1, 2, 3, 4, 5]
    assert plans[0].ratio == pytest.approx(0.8, abs=0.02)
    assert make_plan(model, GTPConfig.paper(num_prop=1)).num_prop == (1,) * 6
    assert make_plan(model, GTPConfig.measured(num_prop=(0, 0, 2, 0, 0, 0))).num_prop == (0, 0, 2, 0, 0, 0)


@pytest.mark.parametrize("block", [3, 4, 5])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("num_prefix", [0, 1, 3])
def test_many_tokens_are_compared_in_blocks_of_rows(
    monkeypatch: pytest.MonkeyPatch, batch: int, num_prefix: int, block: int
) -> None:
    x, sizes = random_tokens(batch, num_prefix)
    count = x.shape[1]
    whole = layer(x, sizes, num_prefix)
    assert compared_pairs(count) == count**2, "few tokens are one block"
    monkeypatch.setattr("gtp_models.methods.gtp.selections.BLOCK", block)
    rows = row_blocks(count)
    assert [first for first, _ in rows] == [0, *(end for _, end in rows[:-1])] and rows[-1][1] == count
    assert len(rows) > 1 and all(end - first >= block for first, end in rows)
    assert compared_pairs(count) < 0.8 * count**2
    after = layer(x, sizes, num_prefix)
    assert after.left is not None and whole.left is not None
    torch.testing.assert_close(after.left, whole.left)
    torch.testing.assert_close(after.tokens.x, whole.tokens.x)
