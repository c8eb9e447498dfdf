"""The scripts that make the tables in benchmarks/results/, on little."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY_RECIPE, noise_of, tiny_vit
from scripts import Script

from gtp_models import GTPConfig, calibrate, load_recipe
from gtp_runtime.errors import DeviceError
from gtp_runtime.precisions import PRECISIONS

EXPORTED = ["drop", "gtp", "gtp-cls", "prune", "measured", "drop-measured", "tome"]
LABELS = [*EXPORTED, "measured-each", "mean", "pitome", "atc-keys", "atc-tokens"]


def test_accuracy_at_equal_macs(script: Script, tmp_path: Path) -> None:
    accuracy, output = script("accuracy"), tmp_path / "accuracy"
    common = ["digits", "--limit", "8", "--num-prop", "4,10", "--output", str(output)]
    accuracy.main([*common, "--groups", "methods,schedules,selections"])
    accuracy.main([*common, "--groups", "thresholds"])
    found = json.loads(output.with_suffix(".json").read_text("utf-8"))
    assert found["images"] == 8
    rows = {(row["setting"], row["amount"]): row for row in found["methods"]}
    assert rows["dense", 0]["agreement"] == 100
    assert all(rows[label, 4]["macs"] == pytest.approx(rows["gtp", 4]["macs"], abs=0.01) for label in LABELS)
    assert rows["mean", 4]["num_prop"] == [5] * 6
    assert rows["tome", 10]["num_prop"] == [10, 10, 10, 10, 10, 7], "at most half of the tokens merge"
    assert rows["dense", 0]["divergence"] == 0 < rows["gtp", 4]["divergence"] < rows["drop", 10]["divergence"]
    assert {row["setting"] for row in found["schedules"]} == set(script("cases").SCHEDULES)
    assert len({row["macs"] for row in found["selections"]}) == 2, "as many amounts"
    assert [row["threshold"] for row in found["thresholds"]] == ["exact", "calibrated", "none"] * 3
    page = output.with_suffix(".md").read_text("utf-8")
    assert all(
        part in page for part in ("8 images", " ± ", "## Methods", "## Schedules", "## Selections", "## Thresholds")
    )
    assert output.with_suffix(".png").stat().st_size > 1000


def test_thresholds_are_watched(script: Script) -> None:
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


def test_a_file_of_another_form_is_left_as_it_is(script: Script, tmp_path: Path) -> None:
    output = tmp_path / "accuracy"
    saved = output.with_suffix(".json")
    saved.write_text('{"methods": [{"setting": "gtp", "top1": 66.0}]}', encoding="utf-8")
    with pytest.raises(SystemExit, match="--output"):
        script("accuracy").main(["digits", "--groups", "schedules", "--output", str(output)])
    assert "66.0" in saved.read_text("utf-8")


def test_images_are_needed(script: Script, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="deit_ti.*--data DIR"):
        script("accuracy").main(["deit_ti", "--weights", "random", "--output", str(tmp_path / "accuracy")])


def test_scores(script: Script) -> None:
    scores: Any = script("scores")
    dense, logits, labels = noise_of(40, 5), noise_of(40, 5) + 0.7 * noise_of(40, 5, seed=1), torch.arange(40) % 5
    found = scores.compare(logits, dense, labels)
    divergences = [
        torch.nn.functional.kl_div(one.log_softmax(0), other.softmax(0), reduction="sum").item()
        for one, other in zip(logits, dense, strict=True)
    ]
    assert found.divergence == pytest.approx(np.mean(divergences), rel=1e-5)
    assert found.divergence_error == pytest.approx(np.std(divergences, ddof=1) / 40**0.5, rel=1e-5)
    assert found.agreement == pytest.approx(100 * sum(logits.argmax(1) == dense.argmax(1)) / 40)
    right, before = (np.asarray(answers.argmax(1) == labels, float) for answers in (logits, dense))
    assert found.top1 == pytest.approx(100 * right.mean())
    assert found.top1_error == pytest.approx(100 * (right.mean() * (1 - right.mean()) / 39) ** 0.5)
    assert found.change == pytest.approx(100 * (right - before).mean())
    assert found.change_error == pytest.approx(100 * (right - before).std(ddof=1) / 40**0.5)
    same = scores.compare(dense, dense, labels)
    assert (same.divergence, same.agreement, same.change, same.change_error) == (0, 100, 0, 0)


def test_equal_amounts(script: Script) -> None:
    choice = script("cases").Choice(TINY_RECIPE, tiny_vit())
    found = {label: settings.num_prop for label, settings in choice.methods(5)}
    assert list(found) == [label for label in LABELS if label != "drop-measured"], "measured does not fit"
    assert found.pop("mean") == 6, "the mean takes the place of one"
    assert found.pop("tome") == (5, 5, 3), "at most half of the tokens merge"
    assert found.pop("pitome") == (5, 5, 3)
    assert set(found.values()) == {5}


@pytest.mark.full
def test_latency(script: Script, tmp_path: Path) -> None:
    output = tmp_path / "latency"
    options = [
        "--models",
        "digits",
        "--num-prop",
        "4",
        "--backends",
        "onnxruntime",
        "--rounds",
        "1",
        "--seconds",
        "0.1",
    ]
    script("latency").main([*options, "--output", str(output)])
    found = json.loads(output.with_suffix(".json").read_text("utf-8"))
    assert [row["method"] for row in found] == ["dense", *EXPORTED]
    assert found[1]["overhead"] == 1 and found[2]["macs_ratio"] < 1
    assert "## Overhead" in output.with_suffix(".md").read_text("utf-8")


@pytest.mark.full
def test_growth(script: Script, tmp_path: Path) -> None:
    output = tmp_path / "growth"
    options = [
        "--preset",
        "paper",
        "--sizes",
        "64,80",
        "--num-prop",
        "1,2",
        "--batches",
        "2",
        "--depth",
        "2",
        "--exports",
        "",
    ]
    script("growth").main([*options, "--model", "deit_ti", "--seconds", "0.1", "--output", str(output)])
    found = json.loads(output.with_suffix(".json").read_text("utf-8"))
    assert [(entry["tokens"], entry["batch"]) for entry in found["exports"]] == [(16, 2), (25, 2)]
    assert all(0.1 < entry["peak_gb"] < 4 and entry["cpu_seconds"] > 1 for entry in found["exports"])
    assert [entry["file"] for entry in found["latency"]] == ["dense.onnx", "model.onnx"] * 2
    assert "Only 2 layers: a trial" in output.with_suffix(".md").read_text("utf-8")


def test_results_are_interpolated_at_a_latency(script: Script, tmp_path: Path) -> None:
    page = script("results_page")
    points = [(1.0, 0.001, 70.0), (0.8, 0.1, 60.0)]
    rows = [
        {"method": "tome", "latency": {"openvino": latency}, "divergence": divergence, "top1": top1}
        for latency, divergence, top1 in points
    ]
    assert page.at_latency(rows, "openvino", 0.9) == pytest.approx((0.01, 65.0))
    assert page.at_latency(rows, "openvino", 0.7) is None, "no point on one side"
    page.write({"tiny": {"title": "Tiny", "images": 8, "dense_top1": 70.0, "rows": rows}}, tmp_path / "results")
    assert "| OpenVINO fp32 | 0.9 | 0.0100 (65.0) |" in (tmp_path / "results.md").read_text("utf-8")
    assert (tmp_path / "results-tiny-openvino.png").exists()


def test_engines_of_every_precision_are_checked_on_a_gpu(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is none, each is listed as skipped."""

    def no_device() -> None:
        raise DeviceError("no GPU here")

    check, report = script("gpu_check"), script("gpu_check").Report()
    monkeypatch.setattr(check, "export", lambda recipe, place, **given: SimpleNamespace(directory=place))
    monkeypatch.setattr(check, "find_flavor", no_device)
    for name in ("onnxruntime_cuda", "eager"):
        monkeypatch.setattr(check, name, lambda *given: None)
    check.check_model(report, load_recipe("digits"), 1, tmp_path)
    names = [name for name, entry in PRECISIONS.items() if "tensorrt" in entry.targets]
    assert sorted(report.skipped) == sorted(f"digits TensorRT {name}: no GPU here" for name in names)
    assert {"fp32", "bf16", "fp16", "int8"} <= set(names)
