"""Every name of timm is supported, or unsupported with a reason, as benchmarks/results/models.json says."""

import json
from dataclasses import asdict
from typing import Any

import pytest
import torch
from helpers import tiny_vit
from timm.models import VisionTransformer

from benchmarks.models import DATA, Unsupported, data, judge, judge_recipe, names, page, to_json
from gtp_models.errors import UnsupportedModelError
from gtp_models.methods.apply import apply

SAMPLE = {
    "vit_tiny_patch16_224": "",
    "test_vit": "",
    "deit_tiny_distilled_patch16_224": "",
    "vit_wee_patch16_reg1_gap_256": "",
    "vit_medium_patch16_clip_224": "",
    "vit_so400m_patch14_siglip_384": "",
    "aimv2_large_patch14_224": "",
    "vit_base_patch16_rpn_224": "",
    "eva_large_patch14_196": "",
    "eva02_tiny_patch14_224": "",
    "vit_small_patch16_dinov3": "",
    "vit_pe_core_tiny_patch16_384": "",
    "vit_small_patch16_18x2_224": "several attentions run in parallel",
    "vit_pwee_patch16_reg1_gap_256": "attention and MLP run in parallel",
    "vit_dwee_patch16_reg1_gap_256": "DiffAttention cannot be patched",
    "vit_tiny_r_s16_p8_224": "in front (hybrid)",
    "test_vit_relpos": "a bias for each pair of positions",
    "beit_base_patch16_224": "a bias for each pair of positions",
    "samvit_base_patch16": "within windows",
    "convit_tiny": "attention gated by relative position",
    "crossvit_9_240": "two branches",
    "davit_tiny": "between channels",
    "efficientvit_b0": "linear attention without an attention map",
    "levit_128": "feature maps shrink",
    "mobilevit_xxs": "convolutions on the grid",
    "naflexvit_base_patch16_gap": "a fixed number of tokens",
    "repvit_m0_9": "no attention",
    "tiny_vit_5m_224": "within windows",
}


@pytest.mark.parametrize("name", SAMPLE)
def test_sample(name: str) -> None:
    verdict = judge(name)
    reason = verdict.reason if isinstance(verdict, Unsupported) else ""
    assert (SAMPLE[name] in reason) if SAMPLE[name] else not reason, verdict
    assert json.dumps(asdict(verdict)) in DATA.read_text("utf-8")


def test_the_page_is_written_from_the_data() -> None:
    found = json.loads(DATA.read_text("utf-8"))
    assert to_json(found) == DATA.read_text("utf-8")
    assert page(found) == DATA.with_suffix(".md").read_text("utf-8")
    digits = next(entry for entry in found["recipes"] if entry["name"] == "digits")
    assert digits == json.loads(json.dumps(asdict(judge_recipe("digits"))))
    assert (digits["patches"], digits["removed"], digits["output"]) == (64, 49, "10 classes")


@pytest.mark.full
def test_the_data_is_what_the_walk_finds() -> None:
    assert to_json(data(judge(name) for name in names())) == DATA.read_text("utf-8")


class Other(VisionTransformer):  # type: ignore[misc]
    def forward_features(self, x: torch.Tensor, **arguments: Any) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_what_only_looks_like_timms() -> None:
    with pytest.raises(UnsupportedModelError, match="Other .*forward_features"):
        apply(tiny_vit(kind=Other))
