"""The scripts that make the tables in docs/, on little."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import TINY_GTP, noise_of, tiny_vit

from gtp_models import calibrate
from gtp_models.methods.gtp.config import GTPConfig

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script by its name, as it finds its neighbours when it is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_accuracy_at_equal_macs(script: Any, tmp_path: Path) -> None:
    accuracy, output = script("accuracy"), tmp_path / "accuracy"
    common = ["digits", "--limit", "8", "--num-prop", "4,10", "--output", str(output)]
    accuracy.main([*common, "--groups", "methods,schedules,selections"])
    accuracy.main([*common, "--groups", "thresholds"])
    found = json.loads(output.with_suffix(".json").read_text())
    assert found["images"] == 8
    rows = {(row["setting"], row["amount"]): row for row in found["methods"]}
    assert rows["dense", 0]["agreement"] == 100
    assert [rows[name, 4]["macs"] for name in ("prune", "mean", "tome", "drop")] == [rows["gtp", 4]["macs"]] * 4
    assert rows["mean", 4]["num_prop"] == [5] * 6
    assert rows["tome", 10]["num_prop"] == [10, 10, 10, 10, 10, 7], "at most half of the tokens merge"
    assert {row["setting"] for row in found["schedules"]} == set(accuracy.SCHEDULES)
    assert len({row["macs"] for row in found["selections"]}) == 2, "as many amounts"
    assert [row["threshold"] for row in found["thresholds"]] == ["exact", "calibrated", "none"] * 3
    page = output.with_suffix(".md").read_text()
    assert all(
        part in page
        for part in ("8 images", "12.50 points", "## Methods", "## Schedules", "## Selections", "## Thresholds")
    )
    assert output.with_suffix(".png").stat().st_size > 1000


def test_thresholds_are_watched(script: Any) -> None:
    thresholds: Any = script("thresholds")
    model, images = tiny_vit(), noise_of(6, 3, 32, 32)
    exact = GTPConfig(num_prop=3, num_neighbours=4, sparsity=0.6)
    calibrated = calibrate(model, exact, torch.split(images, 3))
    truth, near = (thresholds.see(model, images, config) for config in (exact, calibrated))
    same = thresholds.closeness(truth, truth, torch.zeros(6), "exact", exact)
    assert (same.same_sets, same.in_common, same.logits_max) == (100, 100, 0)
    assert same.kept_mean == pytest.approx(60, abs=1)
    assert same.chance == pytest.approx(100 * 7 / 16)
    other = thresholds.closeness(near, truth, torch.zeros(6), "calibrated", exact)
    assert abs(other.kept_mean - 60) < 10 and other.kept_spread > same.kept_spread
    assert 0 < other.logits_mean <= other.logits_max


def test_equal_amounts(script: Any) -> None:
    accuracy: Any = script("accuracy")
    assert accuracy.equal(tiny_vit(), "mean", TINY_GTP).num_prop == (4, 4, 4)
    assert accuracy.equal(tiny_vit(), "tome", GTPConfig(num_prop=5)).num_prop == (5, 5, 3)
    assert accuracy.equal(tiny_vit(), "gtp", TINY_GTP) is TINY_GTP


@pytest.mark.full
def test_growth(script: Any, tmp_path: Path) -> None:
    output = tmp_path / "growth"
    options = ["--sizes", "64,80", "--num-prop", "1,2", "--batches", "2", "--depth", "2", "--exports", ""]
    script("growth").main([*options, "--model", "deit_ti", "--seconds", "0.1", "--output", str(output)])
    found = json.loads(output.with_suffix(".json").read_text())
    assert [(entry["tokens"], entry["batch"]) for entry in found["exports"]] == [(16, 2), (25, 2)]
    assert all(0.1 < entry["peak_gb"] < 4 and entry["cpu_seconds"] > 1 for entry in found["exports"])
    assert [entry["file"] for entry in found["latency"]] == ["dense.onnx", "model.onnx"] * 2
    assert "Only 2 layers: a trial" in output.with_suffix(".md").read_text()
