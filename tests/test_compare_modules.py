"""``compare_module``: methods in a whole module, by its own outputs, beside the dense module."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_whole_modules import PLAIN, Depth, Segmenter, images_in_range
from torch import nn

import gtp_runtime
from gtp_exporters import CompareOptions, ExportOptions, compare_module, export_module
from gtp_exporters.errors import LimitError
from gtp_exporters.measuring import grid
from gtp_exporters.measuring.comparison import Budget, Comparison
from gtp_models import ConfigError, UnsupportedModelError
from gtp_runtime.metrics import Metric

OPTIONS: dict[str, Any] = {
    "methods": ("measured", "tome"),
    "budgets": (Budget(keep=0.75),),
    "seconds": 0.0,
    "rounds": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images, and a mask of six classes for each."""
    from PIL import Image

    place, rng = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (place / kind).mkdir()
    for number in range(10):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(place / "images" / f"{number}.png")
        Image.fromarray(rng.integers(0, 6, (32, 32), np.uint8)).save(place / "masks" / f"{number}.png")
    return place


def compared(module: nn.Module, place: Path, folder: Path, **given: Any) -> Comparison:
    options = CompareOptions(**OPTIONS | {"data": folder / "images", "footprint": False} | given)
    return compare_module(module.eval(), images_in_range(), place, options=options, preprocessing=PLAIN)


def test_a_module_is_compared_by_its_outputs(folder: Path, tmp_path: Path) -> None:
    module = Depth()
    before = module.eval()(images_in_range())["depth"]
    found = compared(module, tmp_path / "out", folder)
    assert torch.equal(module(images_in_range())["depth"], before)
    dense, *others = found.rows
    assert (found.model, found.images, dense.distance) == ("Depth", 10, 0)
    assert [row.name for row in others] == ["measured", "tome"]
    assert all(row.loss.metric == "relative error" and row.distance > 0 for row in others)
    assert all(0.6 < row.macs_ratio < 0.8 and row.ratio > 0 and not row.command for row in others)
    assert not others[0].num_prop[-1], "the decoder reads every patch"
    assert json.loads((tmp_path / "out" / "compare.json").read_text("utf-8"))["rows"][1]["metric"] == "relative error"
    row, place = others[0], tmp_path / "exported"
    given: dict[str, Any] = {
        "settings": row.made_settings(),
        "preprocessing": PLAIN,
        "options": ExportOptions(trace=False),
    }
    export_module(module, images_in_range(), place, check=False, report=False, **given)
    with gtp_runtime.load(place, threads=1) as model, gtp_runtime.load(place / "dense.onnx", threads=1) as twin:
        images = gtp_runtime.find_image_set(folder / "images", model.manifest)
        truth = gtp_runtime.evaluate(model, twin, images)
    assert row.distance == pytest.approx(truth.distance, rel=1e-3)
    assert row.num_prop == model.manifest.num_prop


@pytest.mark.full
def test_truth_and_a_metric_of_ones_own(folder: Path, tmp_path: Path) -> None:
    found = compared(Segmenter(), tmp_path / "masks", folder, methods=("measured",), masks=folder / "masks")
    assert all(row.loss.metric == "mIoU" and row.loss.value is not None for row in found.rows)
    largest = Metric("largest", "", lambda dense, ours, _: abs(dense["logits"] - ours["logits"]).max((1, 2, 3)))
    own = compared(
        Segmenter(), tmp_path / "own", folder, methods=("measured",), metric=replace(largest, is_distance=True)
    )
    assert own.rows[1].loss.metric == "largest" and own.rows[1].distance > 0


@pytest.mark.full
def test_a_schedule_is_fitted_by_the_outputs_and_int8_is_compared(folder: Path, tmp_path: Path) -> None:
    """On images that do not judge."""
    from PIL import Image

    rng = np.random.default_rng(1)
    (tmp_path / "others").mkdir()
    for number in range(160):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "others" / f"{number}.png")
    given = {"methods": ("fitted",), "precisions": ("fp32", "int8"), "calib_data": tmp_path / "others"}
    found = compared(Segmenter(), tmp_path / "out", folder, **given)
    assert [(row.name, row.precision) for row in found.rows] == [
        *(("dense", "fp32"), ("dense", "int8")),
        *(("fitted", "fp32"), ("fitted", "int8")),
    ]


@pytest.mark.full
def test_what_was_measured_of_another_module_is_measured_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets, seen, measure = (Budget(keep=0.8), Budget(keep=0.7)), list[str](), grid._Grid.measure

    def stopped(self: Any, cases: Any, candidates: Any, what: str) -> Any:
        seen.append(what.partition(" of")[0])
        if what.startswith("part 2"):
            raise KeyboardInterrupt
        return measure(self, cases, candidates, what)

    monkeypatch.setattr(grid._Grid, "measure", stopped)

    def interrupted(module: nn.Module) -> list[str]:
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            compared(module, tmp_path / "out", folder, methods=("tome",), budgets=budgets)
        return seen

    module = Segmenter()
    assert interrupted(module) == ["part 1", "part 2"]
    assert interrupted(module) == ["part 2"]
    with torch.no_grad():
        module.head.weight.mul_(1.5)
    assert interrupted(module) == ["part 1", "part 2"]


def test_modules_that_cannot_be_compared(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError):
        compared(nn.Linear(3, 3), tmp_path / "out", folder)
    with pytest.raises(ConfigError, match="output"):
        compared(Segmenter(), tmp_path / "out", folder, output="map")
    with pytest.raises(LimitError, match="data"):
        compared(Segmenter(), tmp_path / "out", folder, data=None)
    assert not (tmp_path / "out").exists()
