"""``export`` of a timm model that the caller holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import gtp_export
from gtp_exporters import ExportOptions
from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.methods.gtp.config import GTPConfig
from gtp_runtime import load

ARGS: dict[str, Any] = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
OPTIONS = ExportOptions(simplify=False, target="onnxruntime")


@pytest.mark.parametrize("patched", [True, pytest.param(False, marks=pytest.mark.full)])
def test_a_timm_model_in_hand(tmp_path: Path, patched: bool) -> None:
    own = {"mean": (0.1, 0.2, 0.3)}
    module = timm.create_model("vit_tiny_patch16_224", pretrained_cfg_overlay=own, **ARGS).eval()
    config = GTPConfig(num_prop=3, num_neighbours=4)
    if patched:
        gtp_export.apply(module, config)
    exported = gtp_export.export(module, tmp_path / "out", options=OPTIONS, report=False)
    manifest = exported.manifest
    assert exported.proof is not None and exported.proof.parity is not None and exported.proof.parity.ok
    assert (manifest.preprocessing.mean, manifest.model.num_classes) == ([0.1, 0.2, 0.3], 5)
    assert (manifest.num_prop == [3, 3]) == patched
    if patched:
        model = load(tmp_path / "out", threads=1)
        pixels = model.reference().images[:1]
        with torch.inference_mode():
            expected = module(torch.from_numpy(model.prepare(pixels))).numpy()
        assert np.allclose(model.run(model.prepare(pixels)), expected, atol=1e-4)


def test_what_is_no_timm_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="pretrained_cfg"):
        gtp_export.export(nn.Linear(2, 2), tmp_path / "out")
    module = timm.create_model("vit_tiny_patch16_224", **ARGS)
    with pytest.raises(ConfigError, match="img_size"):
        gtp_export.export(module, tmp_path / "out", img_size=(32, 32))
    assert not (tmp_path / "out").exists()
