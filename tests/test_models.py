"""The walk over timm's names: each is supported, or refused with a reason; docs/models.md says the same."""

from typing import Any

import pytest
import torch
from helpers import tiny_vit
from timm.models import VisionTransformer

from benchmarks.models import DOCUMENT, document, judge, names
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
    "vit_small_patch16_18x2_224": "several attentions run side by side",
    "vit_pwee_patch16_reg1_gap_256": "attention and MLP run side by side",
    "vit_dwee_patch16_reg1_gap_256": "DiffAttention cannot be patched",
    "vit_tiny_r_s16_p8_224": "in front (hybrid)",
    "test_vit_relpos": "a bias for each pair of places",
    "beit_base_patch16_224": "a bias for each pair of places",
    "samvit_base_patch16": "within windows",
    "convit_tiny": "attention gated by relative place",
    "crossvit_9_240": "two branches",
    "davit_tiny": "between channels",
    "efficientvit_b0": "linear attention without a map",
    "levit_128": "feature maps shrink",
    "mobilevit_xxs": "convolutions on the grid",
    "naflexvit_base_patch16_gap": "one number of tokens",
    "repvit_m0_9": "without attention",
    "tiny_vit_5m_224": "within windows",
}


@pytest.mark.parametrize("name", SAMPLE)
def test_sample(name: str) -> None:
    verdict = judge(name)
    assert (SAMPLE[name] in verdict.reason) if SAMPLE[name] else (not verdict.reason), verdict
    assert (
        f"| {name} |" in DOCUMENT.read_text("utf-8") or name in DOCUMENT.read_text("utf-8").partition("## Refused")[2]
    )


@pytest.mark.full
def test_the_document_is_what_the_walk_finds() -> None:
    assert document([judge(name) for name in names()]) == DOCUMENT.read_text("utf-8")


class Other(VisionTransformer):  # type: ignore[misc]
    def forward_features(self, x: torch.Tensor, **arguments: Any) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_what_only_looks_like_timms() -> None:
    with pytest.raises(UnsupportedModelError, match="Other cannot be patched: it overrides forward_features"):
        apply(tiny_vit(kind=Other))
