"""Our GTP against what the authors' published implementation computes (tests/golden)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import VisionTransformer
from torch import nn

from gtp_models import GTPConfig, apply, trace_tokens

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "golden.json").read_text("utf-8"))
VALUES = np.load(GOLDEN / "golden.npz")
SETTINGS = ("selection", "propagation", "graph", "num_prop", "num_neighbours", "sparsity", "alpha", "token_scale")


def small_model(case: dict[str, Any]) -> nn.Module:
    gap: dict[str, Any] = {"class_token": False, "global_pool": "avg", "fc_norm": False}
    model = VisionTransformer(
        img_size=64,
        patch_size=8,
        embed_dim=48,
        depth=4,
        num_heads=3,
        num_classes=10,
        **({} if case["class_token"] else gap),
    )
    model.load_state_dict(load_file(GOLDEN / ("vit_cls.safetensors" if case["class_token"] else "vit_gap.safetensors")))
    return model.eval()


def full_model(case: dict[str, Any]) -> nn.Module:
    model = timm.create_model(case["timm"])
    rng = np.random.default_rng(case["weights_seed"])
    state = {key: torch.from_numpy(formula(rng, key, value)) for key, value in sorted(model.state_dict().items())}
    model.load_state_dict(state)
    return model.eval()


def formula(rng: np.random.Generator, key: str, value: torch.Tensor) -> np.ndarray:
    n = rng.standard_normal(tuple(value.shape), dtype=np.float32)
    if "norm" in key and key.endswith("weight"):
        return 1 + np.float32(0.1) * n
    if key.endswith("bias"):
        return np.float32(0.05) * n
    if "qkv" in key:
        return n * np.float32(2 / np.sqrt(value.shape[1]))
    if key in ("pos_embed", "cls_token"):
        return np.float32(0.3) * n
    if "patch_embed" in key:
        return n / np.float32(np.sqrt(np.prod(value.shape[1:])))
    return n * np.float32(0.7 / np.sqrt(value.shape[-1]))


def check(model: nn.Module, images: np.ndarray, case: dict[str, Any], tolerance: float) -> None:
    apply(model, GTPConfig(**{name: case[name] for name in SETTINGS}))
    with torch.inference_mode(), trace_tokens(model) as trace:
        logits = model(torch.from_numpy(images)).numpy()
    for layer, step in enumerate(trace):
        for name, ours in (("kept", step.kept), ("propagated", step.propagated)):
            theirs = VALUES[f"{case['name']}/layer{layer}/{name}"]
            np.testing.assert_array_equal(np.sort(ours, 1), np.sort(theirs, 1), err_msg=f"layer {layer} {name}")
    np.testing.assert_allclose(logits, VALUES[f"{case['name']}/logits"], rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_small(case: dict[str, Any]) -> None:
    check(small_model(case), VALUES["input"], case, 2e-5)


@pytest.mark.parametrize("row", [0, 1])
def test_one_image_alone_equals_its_row_of_the_batch(row: int) -> None:
    case = CASES["cases"][7]
    model = apply(small_model(case), GTPConfig(num_prop=5))
    both, alone = (model(torch.from_numpy(images)) for images in (VALUES["input"], VALUES["input"][row : row + 1]))
    torch.testing.assert_close(both[row : row + 1], alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("case", CASES["full_size"], ids=lambda case: case["name"])
def test_full_size(case: dict[str, Any]) -> None:
    images = np.random.default_rng(case["input_seed"]).standard_normal((1, 3, 224, 224), np.float32)
    check(full_model(case), images, case, 2e-4)
