"""timm's Eva family under every method; the references run timm's own blocks and attention, in float64."""

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from eva_models import EVAS, evas, tiny_eva
from helpers import TINY_GTP, images_for, methods, settings_of
from timm.models.eva import Eva
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.frame.attention import attend, rope_rows
from gtp_models.frame.families import block_form
from gtp_models.frame.families.eva import PatchedEva
from gtp_models.frame.patch import is_patched, remove, trace_tokens
from gtp_models.frame.tokens import Tokens
from gtp_models.frame.trace import recording
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.calibration import calibrate
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.plan import make_plan

batches = pytest.mark.parametrize("batch", [1, 3])
SETTINGS = GTPConfig(num_prop=3, num_neighbours=4)


def rope_of(model: Any, layer: int) -> Tensor | None:
    """timm's rotary embeddings of the patches in a layer."""
    rope: Tensor | None = model._pos_embed(model.patch_embed(images_for(model, 1).double()))[1]
    return rope if rope is None or rope.ndim == 2 else rope[layer]


def rows_of(rope: Tensor | None, ids: Tensor) -> Tensor | None:
    """The rows of patches; -1 has no position, so its sines are 0 and its cosines 1."""
    if rope is None:
        return None
    still = (torch.arange(rope.shape[-1]) >= rope.shape[-1] // 2).to(rope).expand(*rope.shape[:-2], 1, -1)
    return torch.cat([still, rope], -2)[..., ids + 1, :]


@evas
def test_without_propagation_it_is_timm(name: str) -> None:
    model = tiny_eva(name)
    images = images_for(model)
    assert torch.equal(model(images), apply(model, GTPConfig(num_prop=0))(images))


@evas
@batches
@torch.no_grad()
def test_our_form_of_the_blocks_is_timms(name: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_eva(name).double()
    images = images_for(model, batch).double()
    expected = model(images)
    apply(model, GTPConfig(num_prop=0))
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


@evas
@batches
@pytest.mark.parametrize("method", ["drop", "gtp-None", "gtp"])
@torch.no_grad()
def test_rotation_follows_the_survivors(name: str, batch: int, method: str) -> None:
    """timm's own blocks on the tokens that are left, with their rows of its rotary embeddings."""
    model = tiny_eva(name).double()
    plain, images = copy.deepcopy(model), images_for(model, batch).double()
    apply(model, settings_of(method, alpha=0, token_scale=False))
    with trace_tokens(model) as trace:
        logits = model(images)
    for image in range(batch):
        x = plain.norm_pre(plain._pos_embed(plain.patch_embed(images[image : image + 1]))[0])
        standing = torch.arange(plain.patch_embed.num_patches)
        for layer, (block, step) in enumerate(zip(plain.blocks, trace, strict=True)):
            x = block(x, rope=rows_of(rope_of(plain, layer), standing))
            kept = step.kept[image]
            places = (kept[:, None] == standing).int().argmax(1) + plain.num_prefix_tokens
            x = torch.cat([x[:, : plain.num_prefix_tokens], x[:, places]], 1)  # the MLP sees tokens one by one
            standing = kept
        expected = plain.forward_head(plain.norm(x))[0]
        torch.testing.assert_close(logits[image], expected, rtol=0, atol=1e-11 * float(expected.abs().max()))


@evas
@batches
@pytest.mark.parametrize("method", ["gtp", "gtp-Mean", "tome"])
@torch.no_grad()
def test_every_layers_attention_is_timms(name: str, batch: int, method: str) -> None:
    """With the logarithm of the token scales as timm's mask, and for the mean tokens no position."""
    model = tiny_eva(name).double()
    apply(model, settings_of(method))
    with recording(model.blocks, keep=lambda layer: layer.tokens) as layers:
        model(images_for(model, batch).double())
    for index, tokens in enumerate(layers[:-1], start=1):
        block = model.blocks[index]
        x = block_form(block).attention_input(block, tokens.x)
        ours = attend(block.attn, x, tokens, None, rope_rows(tokens, index))
        for image in range(batch):
            expected = timms(model, index, x, tokens, image)
            torch.testing.assert_close(ours.out.view(batch, *expected.shape)[image], expected, rtol=0, atol=1e-10)


def timms(model: Any, layer: int, x: Tensor, tokens: Tokens, image: int) -> Tensor:
    scale = tokens.scaled().scale
    assert scale is not None
    rows = rows_of(rope_of(model, layer), tokens.image_ids()[image])
    mask = scale.reshape(tokens.batch, 1, 1, -1)[image : image + 1].log()
    own = x.view(tokens.batch, tokens.count, -1)[image : image + 1]
    attended: Tensor = model.blocks[layer].attn(own, rope=rows, attn_mask=mask)
    return attended[0]


@evas
@methods
def test_comes_off(name: str, method: str) -> None:
    model = tiny_eva(name)
    images, keys, blocks = images_for(model), list(model.state_dict()), list(model.blocks)
    before = model(images)
    apply(apply(model, GTPConfig(num_prop=1, num_neighbours=4)), settings_of(method))
    assert (type(model), is_patched(model), isinstance(model, Eva)) == (PatchedEva, True, True)
    assert list(model.state_dict()) == keys
    assert model(images).shape == before.shape
    assert torch.equal(model(images), before) == (method == "dense")
    assert remove(model) is remove(model) is model
    assert (type(model), type(model.blocks), list(model.blocks)) == (Eva, nn.ModuleList, blocks)
    assert list(model.state_dict()) == keys
    assert torch.equal(model(images), before)


@evas
def test_copies_answer_the_same(name: str) -> None:
    model = apply(tiny_eva(name), TINY_GTP)
    images = images_for(model)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(images), model(images))
        assert type(remove(again)) is Eva


@methods
@evas
def test_cost_against_torchs_counter(name: str, method: str) -> None:
    model = tiny_eva(name)
    expected = make_plan(model, settings_of(method, (0, 4, 2), selection="CosSimMax"))
    apply(model, expected)
    for part in [block.attn for block in model.blocks] + [model.attn_pool] * (model.attn_pool is not None):
        part.fused_attn = False  # torch counts fused attention otherwise
    with FlopCounterMode(display=False) as counter:
        model.requires_grad_(False)(images_for(model))
    assert expected.total == counter.get_total_flops() / 2 / 2


@pytest.mark.parametrize("name", ["EVA-02", "mixed", "Sapiens2", "mrope"])
def test_other_settings(name: str) -> None:
    model = tiny_eva(name)
    images = images_for(model, 8)
    config = calibrate(model, replace(SETTINGS, sparsity=0.6, threshold="calibrated"), [images])
    assert type(model) is Eva
    assert not torch.equal(apply(model, config)(images), apply(model, SETTINGS)(images))
    single = model(images).detach()
    halves = model.bfloat16()(images.bfloat16()).detach()
    assert halves.dtype == torch.bfloat16
    assert float((halves.float() - single).abs().mean()) < 0.2 * float(single.abs().mean())
    loss = apply(model.float().train(), SETTINGS)(images).sum()
    loss.backward()
    assert model.blocks[2].attn.proj.weight.grad.abs().sum() > 0


def test_what_gtp_has_no_form_for_sees_unpatched_blocks() -> None:
    model = tiny_eva()
    images, mask = images_for(model), torch.rand(2, 1, 1, 17) > 0.3
    masked, cut = (
        model(images, attn_mask=mask),
        model.forward_intermediates(images, indices=[0], attn_mask=mask)[1],
    )
    apply(model, TINY_GTP)
    assert torch.equal(model(images, attn_mask=mask), masked)
    again = model.forward_intermediates(images, indices=[0], attn_mask=mask, stop_early=True)[1]
    assert torch.equal(again[0], cut[0])
    model.prune_intermediate_layers([0], prune_head=False)
    assert not is_patched(model)
    assert model(images).shape == (2, 5)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"dynamic_img_size": True}, r"dynamic_img_size=True.*dynamic_img_size=False"),
        ({"patch_drop_rate": 0.1}, r"patch_drop_rate.*create it with patch_drop_rate=0"),
        ({"use_rot_pos_emb": True, "rope_type": "base"}, r"RotaryEmbedding .*rope_type='cat'"),
    ],
)
def test_unsupported(overrides: dict[str, Any], reason: str) -> None:
    model = Eva(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3, **overrides)
    with pytest.raises(UnsupportedModelError, match=reason):
        apply(model)
    assert type(model) is Eva


def test_unsupported_parts() -> None:
    model = tiny_eva()
    model.blocks[1].attn = nn.MultiheadAttention(24, 3)
    with pytest.raises(UnsupportedModelError, match=r"MultiheadAttention .*eva\.EvaAttention"):
        apply(model)
    model.blocks[1] = nn.TransformerEncoderLayer(24, 3)
    with pytest.raises(UnsupportedModelError, match=r"TransformerEncoderLayer .*eva\.EvaBlock"):
        apply(model)
    model.__class__ = type("Other", (Eva,), {})
    with pytest.raises(UnsupportedModelError, match=r"Other .*Eva and VisionTransformer"):
        apply(model)
    with pytest.raises(ConfigError):
        apply(tiny_eva("registers"), GTPConfig(num_prop=1, num_neighbours=4, selection="CLSAttnMax"))


def test_every_form_is_tried() -> None:
    ropes = {type(tiny_eva(name).rope).__name__ for name in EVAS}
    assert {"NoneType", "RotaryEmbeddingCat", "RotaryEmbeddingDinoV3", "RotaryEmbeddingMixed"} <= ropes
