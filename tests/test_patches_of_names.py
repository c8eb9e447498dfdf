"""Patches of every family of names: put back, exported and proven. The names' own architecture, at small sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers import noise_of

import gtp_runtime
from gtp_exporters import ExportOptions, export
from gtp_models import GTPConfig, apply

SMALL: dict[str, Any] = {"img_size": 64, "depth": 3, "embed_dim": 48, "num_heads": 2, "dynamic_img_size": False}
MEASURED = GTPConfig(num_prop=(4, 0, 3), selection="Regeneration", graph="Nearest", propagation="MergeNorm")
NAMES = (
    "deit_tiny_patch16_224",
    "deit3_small_patch16_224",
    "deit_small_distilled_patch16_224",
    "vit_tiny_patch16_224",
    "vit_base_patch16_clip_224",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_siglip_gap_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch16_rpn_224",
    "vit_wee_patch16_reg1_gap_256",
    "flexivit_small",
    "aimv2_large_patch14_224",
    "beit3_base_patch16_224",
    "eva_large_patch14_196",
    "eva02_tiny_patch14_336",
    "vit_small_patch16_dinov3",
    "vit_small_patch16_rope_224",
    "vit_medium_patch16_rope_reg1_gap_256",
    "vit_pe_core_tiny_patch16_384",
)


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_patches(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model(name, **SMALL).eval()
    apply(model, MEASURED)
    options = ExportOptions(output="patches", dense=False)
    made = export(model, tmp_path / "out", options=options, report=False)
    assert made.proof is not None and made.proof.parity is not None and made.proof.parity.ok
    assert [spec.shape for spec in made.manifest.entry("model.onnx").answers] == [[1, 16, 48]]
    apply(model, MEASURED, restore=True)
    images = noise_of(1, 3, 64, 64)
    with torch.inference_mode(), gtp_runtime.load(made.directory) as loaded:
        expected = model.forward_features(images)[:, model.num_prefix_tokens :]
        np.testing.assert_allclose(loaded.run_all(images.numpy())["patches"], expected.numpy(), atol=1e-3)
