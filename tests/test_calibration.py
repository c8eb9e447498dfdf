from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifacts import Command
from helpers import TINY_GTP, TINY_RECIPE, images_for, noise_of, tiny_vit

from gtp_exporters import ExportOptions, export
from gtp_exporters.agreement import make_session
from gtp_exporters.graph.check import check_static, infer_shapes
from gtp_exporters.graph.rules import simplify
from gtp_exporters.graph.trace import Traced, to_onnx
from gtp_exporters.subject import calibrate_on
from gtp_models import calibrate, load_recipe
from gtp_models.errors import ConfigError
from gtp_models.frame.patch import is_patched
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.gtp.sparsity import exact_threshold, log_statistics

SPARSE = replace(TINY_GTP, num_prop=(0, 3, 3), sparsity=0.6, threshold="calibrated", calibration=None)


def calibrated(model: Any, images: int = 24) -> GTPConfig:
    return calibrate(model, SPARSE, torch.split(images_for(model, images), 8))


def test_statistics_are_those_of_the_log_attention() -> None:
    logits = 3 * noise_of(2, 3, 9, 9)
    attention = logits.softmax(-1)
    mean, std = log_statistics(logits, attention)
    logs = attention.log().flatten(-2)
    torch.testing.assert_close(mean[..., 0, 0], logs.mean(-1))
    torch.testing.assert_close(std[..., 0, 0], logs.std(-1, correction=0))


def test_z_is_the_mean_of_the_exact_thresholds() -> None:
    model = tiny_vit()
    config = calibrated(model)
    assert config.threshold == "calibrated"
    assert config.calibration is not None
    assert [len(z) for z in config.calibration] == [0, 3, 3]
    assert not is_patched(model)
    assert GTPConfig(**config.to_dict()) == config


def test_the_share_that_stays_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_vit()
    apply(model, calibrated(model))
    shares: list[float] = []

    def spy(attention: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        shares.append(float((attention >= least).float().mean()))
        exact = exact_threshold(attention, 0.6)
        assert exact is not None
        return attention * (attention >= least)

    monkeypatch.setattr("gtp_models.frame.attention.sparsify", spy)
    model(noise_of(8, 3, 32, 32))
    assert len(shares) == 2
    assert all(abs(share - 0.6) < 0.1 for share in shares)


@pytest.mark.parametrize("batch", [1, pytest.param(3, marks=pytest.mark.full)])
def test_onnx_equals_eager_and_builds_for_tensorrt(batch: int) -> None:
    model = tiny_vit()
    apply(model, calibrated(model))
    graph = infer_shapes(simplify(to_onnx(Traced(model, True), batch, 20)[0])[0])
    check_static(graph, "tensorrt")
    images = noise_of(batch, 3, 32, 32)
    with torch.inference_mode():
        expected = model(images).numpy()
    logits = make_session(graph).run(["logits"], {"images": images.numpy()})[0]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-4)


def test_without_calibration_it_is_refused() -> None:
    for config in (SPARSE, replace(SPARSE, calibration=((), (1.0,), (1.0, 1.0, 1.0)))):
        with pytest.raises(ConfigError, match=r"z .*gtp-export calibrate"):
            apply(tiny_vit(), config)
    with pytest.raises(ConfigError):
        calibrate(tiny_vit(), replace(SPARSE, sparsity=1.0), [])
    with pytest.raises(ConfigError, match="--calib-data DIR"):
        calibrate_on(tiny_vit(), SPARSE, None)


def test_export_calibrates_on_the_recipesown_images(tmp_path: Path) -> None:
    images = load_recipe("digits").calibration
    assert images is not None
    assert len(list(images.glob("*/*.png"))) == 100
    config = replace(TINY_GTP, num_prop=2, sparsity=0.7, threshold="calibrated")
    options = ExportOptions(calib_data=images, dense=False)
    out = tmp_path / "out"
    manifest = export(TINY_RECIPE, out, settings=config, weights="random", options=options, check=False).manifest
    assert all(manifest.settings["calibration"])


def test_calibrate_checks_the_place_first_and_replaces_recipes_only(command: Command, tmp_path: Path) -> None:
    def refused(output: Path, model: str = "digits") -> str:
        ran = command("calibrate", model, "-o", output, "--sparsity", "0.7")
        assert ran.code == 2
        return ran.error

    mine = tmp_path / "compose.yaml"
    mine.write_text("services: {}\n", encoding="utf-8")
    assert "not a recipe" in refused(mine)
    assert mine.read_text("utf-8") == "services: {}\n"
    assert ".yaml" in refused(tmp_path / "recipe.json")
    assert "no folder" in refused(tmp_path / "missing" / "recipe.yaml")
    mine.write_text("timm: vit_tiny_patch16_224\n", encoding="utf-8")
    assert "'no-such-model'" in refused(mine, "no-such-model")
