from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import TINY_GTP, images_for, noise_of, tiny_vit, variants

from gtp_models.frame.attention import AttentionOutput, attend, sparsify
from gtp_models.frame.tokens import Tokens
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.axes import Split, State
from gtp_models.methods.gtp.blocks import GTPBlocks
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.gtp.graphs import picked_edges
from gtp_models.methods.gtp.propagations import PROPAGATIONS
from gtp_models.methods.gtp.selections import SELECTIONS
from gtp_models.methods.gtp.sparsity import exact_threshold
from gtp_models.plan import make_plan

X = noise_of(2, 9, 24)
TOKENS = Tokens(X.flatten(0, 1), batch=2, num_prefix=1)


def blocks_with(config: GTPConfig, **overrides: Any) -> GTPBlocks:
    model = tiny_vit(**overrides)
    plan = make_plan(model, config)
    return GTPBlocks(model.blocks, config, plan.shape, plan.num_prop)


@variants
def test_a_layer_without_propagation_equals_timms(overrides: dict[str, Any]) -> None:
    blocks = blocks_with(replace(TINY_GTP, num_prop=(4, 0, 2)), **overrides)
    ours = blocks.run_block(1, TOKENS).tokens.x
    torch.testing.assert_close(ours.view_as(X), blocks[1](X), rtol=0, atol=2e-5)


def test_attention_is_scaled_and_sparsified_before_use() -> None:
    attn, scale = tiny_vit().blocks[0].attn, 1 + torch.rand(2, 1, 9)
    query, key, value = attn.qkv(X).view(2, 9, 3, 3, 8).permute(2, 0, 3, 1, 4)
    logits = (query * attn.scale) @ key.mT + scale.log()[:, None]
    attention = logits.softmax(-1)
    expected = sparsify(attention, exact_threshold(attention, 0.6))
    attended = attend(attn, TOKENS.x, replace(TOKENS, scale=scale), lambda _, given: exact_threshold(given, 0.6))
    torch.testing.assert_close(attended.map, expected)
    torch.testing.assert_close(attended.key, key)
    torch.testing.assert_close(attended.out.view_as(X), attn.proj((expected @ value).transpose(1, 2).flatten(2)))


def test_the_first_row_by_itself() -> None:
    attn, tokens = tiny_vit().blocks[0].attn, replace(TOKENS, scale=1 + torch.rand(2, 1, 9))
    whole, first = (attend(attn, TOKENS.x, tokens, first_row=only) for only in (False, True))
    assert first.map.shape == (2, 3, 1, 9)
    torch.testing.assert_close(first.map, whole.map[..., :1, :])
    assert torch.equal(first.out, whole.out)


@pytest.mark.parametrize("selection", ["CLSAttnMax", "CLSAttnMean", "MixedAttnMax"])
@pytest.mark.parametrize("sparsity", [0.7, 1.0])
def test_only_class_token_selection_needs_one_row(selection: Any, sparsity: float) -> None:
    blocks = blocks_with(replace(TINY_GTP, selection=selection, sparsity=sparsity))
    assert blocks.first_row == (selection != "MixedAttnMax" and sparsity == 1)


def test_gap_is_between_the_last_that_stays_and_the_first_that_leaves() -> None:
    attention = noise_of(2, 3, 9, 9).softmax(-1)
    blocks = blocks_with(replace(TINY_GTP, propagation="None"))
    layer = blocks.reduce(TOKENS, AttentionOutput(TOKENS.x, attention, noise_of(2, 3, 9, 8)), 3)
    scores = SELECTIONS[TINY_GTP.selection].score(State(TOKENS, attention))
    ordered = scores[:, 1:].sort(descending=True).values
    assert layer.gap is not None
    torch.testing.assert_close(layer.gap, ordered[:, 4] - ordered[:, 5])
    assert layer.tokens.count == 6


@pytest.mark.parametrize("propagation", ["GraphProp", "None", "Mean"])
def test_propagate(propagation: str) -> None:
    x, scale, weights = noise_of(2, 6, 4), torch.rand(2, 1, 6), torch.rand(2, 6, 6)
    orders = torch.tensor([[0, 3, 1, 5, 2, 4], [0, 1, 2, 5, 4, 3]])
    entry = PROPAGATIONS[propagation]
    tokens = Tokens(x.flatten(0, 1), 2, 1, scale=scale if entry.scales else None, setup=weights.mT)
    staying, leaving = orders.split([4, 2], 1)
    split = Split(staying, leaving, tokens.pick(staying), tokens.pick(leaving))
    edges = picked_edges(State(tokens, noise_of(2, 3, 6, 6).softmax(-1)), split)
    ours = entry.combine(split, edges if entry.uses_graph else None)
    assert split.left.ids is not None
    assert torch.equal(split.left.ids, leaving)
    for image, (kept, out) in enumerate(zip(orders[:, :4], orders[:, 4:], strict=True)):
        vectors, scales, ids = x[image, kept], scale[image, 0, kept], [kept.tolist()]
        if propagation == "GraphProp":
            received = weights[image][kept][:, out]
            vectors, scales = vectors + received @ x[image, out], scales + received @ scale[image, 0, out]
        if propagation == "Mean":
            vectors = torch.cat([vectors, x[image, out].mean(0, keepdim=True)])
            ids = [[*kept.tolist(), 0]]
        torch.testing.assert_close(ours.x.view(2, -1, 4)[image], vectors)
        if entry.scales:
            torch.testing.assert_close(ours.scale[image, 0], scales)
        assert ours.ids[image : image + 1].tolist() == ids
    image_ids = (orders[:, 1:4] - 1).tolist()
    assert ours.image_ids().tolist() == [[*row, -1] if propagation == "Mean" else row for row in image_ids]


def test_drop_path_drops_whole_images() -> None:
    model = tiny_vit(drop_path_rate=0.5).train()
    apply(model, TINY_GTP)(images_for(model)).sum().backward()
    x, config = noise_of(32, 9, 24), replace(TINY_GTP, propagation="None", sparsity=1.0, num_prop=(0, 0, 4))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        apply(model, config)
        tokens = model.blocks.run_block(2, Tokens(x.flatten(0, 1), 32, 1)).tokens
    before = x.gather(1, tokens.ids[..., None].expand(-1, -1, 24))
    unchanged = (tokens.x.view(32, 5, 24) == before).all(-1)
    assert 0 < unchanged.all(1).sum() == unchanged.any(1).sum() < 32


def test_token_scale_matters() -> None:
    model = tiny_vit()
    images = images_for(model)
    on, off = (apply(model, replace(TINY_GTP, token_scale=value))(images) for value in (True, False))
    assert not torch.allclose(on, off)
