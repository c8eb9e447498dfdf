"""The scripts that make the tables in benchmarks/results/, on little."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import TINY_RECIPE, noise_of, openvino_has, tiny_vit
from scripts import Script

from gtp_exporters.measuring.result import Loss, Result, Timing
from gtp_exporters.measuring.store import Store
from gtp_models import GTPConfig, calibrate, load_recipe
from gtp_runtime import Footprint
from gtp_runtime.errors import DeviceError, OutputError
from gtp_runtime.precisions import PRECISIONS

EXPORTED = ["drop", "gtp", "gtp-cls", "prune", "measured", "drop-measured", "tome"]
LABELS = [*EXPORTED, "measured-each", "mean", "pitome", "atc-keys", "atc-tokens"]


def kept(script: Script, output: Path, page: str) -> Any:
    """Return what a store holds of the only model."""
    store = Store(output.with_suffix(".jsonl"), {"page": page, "batch": 1})
    (measured,) = script("run").measured(store)
    return measured


def test_accuracy_at_equal_macs(script: Script, tmp_path: Path) -> None:
    output = tmp_path / "accuracy"
    common = ["accuracy", "digits", "--limit", "8", "--amounts", "4,10", "--output", str(output)]
    script("run").main([*common, "--parts", "losses"])
    script("run").main([*common, "--parts", "thresholds"])
    model = kept(script, output, "accuracy")
    rows = {(row.budget["group"], row.name, row.budget["num_prop"]): row for row in model.part("losses")}
    methods = {(name, amount): row for (group, name, amount), row in rows.items() if group == "methods"}
    assert methods["dense", 4].loss.agreement == 1 and methods["dense", 4].loss.images == 8
    assert all(
        methods[label, 4].macs_ratio == pytest.approx(methods["gtp", 4].macs_ratio, abs=0.01) for label in LABELS
    )
    assert methods["mean", 4].num_prop == [5] * 6
    assert methods["tome", 10].num_prop == [10, 10, 10, 10, 10, 7], "at most half of the tokens merge"
    assert methods["dense", 4].distance == 0 < methods["gtp", 4].distance < methods["drop", 10].distance
    schedules = {name for group, name, _ in rows if group == "schedules"}
    assert schedules == {"dense", *script("grids").SCHEDULES}
    selections = [row for (group, name, _), row in rows.items() if group == "selections" and name != "dense"]
    assert len({row.macs_ratio for row in selections}) == 2, "as many amounts"
    assert [row["threshold"] for row in model.thresholds] == ["exact", "calibrated", "none"] * 3
    page = output.with_suffix(".md").read_text("utf-8")
    assert all(
        part in page for part in ("8 images", " ± ", "## Methods", "## Schedules", "## Selections", "## Thresholds")
    )
    assert "python benchmarks/run.py accuracy digits --amounts 4,10 --parts thresholds --limit 8" in page
    assert output.with_suffix(".svg").stat().st_size > 1000


def test_what_is_measured_is_not_measured_again(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = script("run"), []
    monkeypatch.setitem(run.PARTS, "losses", lambda bench, cases, running: calls.append(cases) or [])
    common = ["accuracy", "digits", "--parts", "losses", "--groups", "methods", "--output", str(tmp_path / "accuracy")]
    run.main([*common, "--amounts", "2"])
    run.main([*common, "--amounts", "2,3"])
    assert [cases[0].budget["num_prop"] for cases in calls] == [2, 3]
    run.main([*common, "--amounts", "2", "--again"])
    assert calls[-1][0].budget["num_prop"] == 2


def test_a_fitted_schedule_is_fitted_once(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, fits, judged = script("run"), [], []
    monkeypatch.setattr(run.Bench, "_fit", lambda bench, settings: fits.append(settings.keep) or [0, 16, 0, 8, 0, 8])
    monkeypatch.setitem(run.PARTS, "losses", lambda bench, cases, running: judged.append(cases) or [])
    common = ["results", "digits", "--parts", "losses", "--methods", "fitted", "--output", str(tmp_path / "results")]
    run.main([*common, "--amounts", "0.8"])
    run.main([*common, "--amounts", "0.8"])
    assert fits == [0.8], "nothing to measure, nothing to fit"
    run.main([*common, "--amounts", "0.8,0.6", "--again"])
    assert fits == [0.8, 0.8, 0.6]
    assert {case.settings.num_prop for cases in judged for case in cases} == {(0, 16, 0, 8, 0, 8)}
    assert len(judged) == 3, "the first was judged again"


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
    saved = output.with_suffix(".jsonl")
    saved.write_text('{"methods": [{"setting": "gtp", "top1": 66.0}]}\n', encoding="utf-8")
    with pytest.raises(OutputError, match="accuracy.jsonl"):
        script("run").main(["accuracy", "digits", "--groups", "schedules", "--output", str(output)])
    assert "66.0" in saved.read_text("utf-8")


def test_images_are_needed(script: Script, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--data"):
        script("run").main(["accuracy", "deit_ti", "--weights", "random", "--output", str(tmp_path / "accuracy")])


def test_a_page_names_its_command_without_paths(script: Script) -> None:
    run = script("run")
    options = run.parse(["results", "digits", "--data", "/home/somebody/images", "--weights", "mine.safetensors"])
    assert run.command(options, "digits") == "python benchmarks/run.py results digits --data DIR --weights FILE"
    options = run.parse(["precision", "deit_s", "--weights", "random", "--amounts", "0.5"])
    assert run.command(options, "deit_s") == "python benchmarks/run.py precision deit_s --weights random --amounts 0.5"


def test_equal_amounts(script: Script) -> None:
    choice = script("grids").Choice(TINY_RECIPE, tiny_vit())
    found = {label: settings.num_prop for label, settings in choice.methods(5)}
    assert list(found) == list(LABELS)
    assert sum(found.pop("drop-measured")) > 5, "the layers of measured"
    assert found.pop("mean") == 6, "the mean takes the place of one"
    assert found.pop("tome") == (5, 5, 3), "at most half of the tokens merge"
    assert found.pop("pitome") == (5, 5, 3)
    assert set(found.values()) == {5}


@pytest.mark.full
def test_latency(script: Script, tmp_path: Path) -> None:
    output = tmp_path / "latency"
    options = ["--amounts", "4", "--backends", "onnxruntime", "--loads", "1", "--seconds", "0.1"]
    script("run").main(["latency", "digits", *options, "--output", str(output)])
    rows = kept(script, output, "latency").part("timings")
    assert [row.name for row in rows] == ["dense", *EXPORTED]
    assert rows[0].ratio == 1 and rows[2].macs_ratio < 1
    assert "## Overhead" in output.with_suffix(".md").read_text("utf-8")
    assert output.with_name("latency-digits.svg").stat().st_size > 1000


@pytest.mark.full
def test_growth(script: Script, tmp_path: Path) -> None:
    output = tmp_path / "growth"
    sizes = ["--preset", "paper", "--sizes", "64,80", "--num-prop", "1,2", "--batches", "2", "--depth", "2"]
    options = [*sizes, "--exports", "", "--model", "deit_ti", "--seconds", "0.1", "--output", str(output)]
    script("growth").main(options)
    store = Store(output.with_suffix(".jsonl"), {"page": "growth"})
    exports, latency = store.results("exports"), store.results("latency")
    assert exports is not None and latency is not None
    assert [(row.budget["tokens"], row.budget["batch"]) for row in exports] == [(16, 2), (25, 2)]
    assert all(row.cost and 100 < (row.cost.peak_mib or 0) < 4000 for row in exports)
    assert all(row.parameters["cpu_seconds"] > 1 for row in exports)
    assert [row.name for row in latency] == ["dense", "GTP"] * 2
    assert "Only 2 layers: a trial" in output.with_suffix(".md").read_text("utf-8")


def result(name: str, keep: float, backend: str = "openvino", precision: str = "fp32", **measured: Any) -> Result:
    """Return a result with a budget."""
    ratio = 1.0 if name == "dense" else keep
    budget = {"group": "methods", "keep": keep}
    return Result(name, "", {}, backend, precision, [], 0, ratio, ratio, budget=budget, **measured)


def test_results_are_interpolated_at_a_latency(script: Script) -> None:
    pages = script("pages")
    points = [(1.0, 0.001, 0.7), (0.8, 0.1, 0.6)]
    losses = [
        result("tome", keep, loss=Loss(8, distance, top1=top1, dense_top1=0.7)) for keep, distance, top1 in points
    ]
    timings = [result("tome", keep, timing=Timing(10 * keep, 10.0)) for keep, _, _ in points]
    model = pages.Measured("tiny", "Tiny", ["a command"], {"losses": losses, "timings": timings})
    (rows,) = pages.with_losses(model).values()
    assert pages.at_latency(rows, 0.9) == pytest.approx((0.01, 65.0))
    assert pages.at_latency(rows, 0.7) is None, "no point on one side"
    files = pages.results([model], "results", 1)
    assert "| OpenVINO fp32 | 0.9 | 0.0100 (65.0) |" in files["results.md"] and "a command" in files["results.md"]
    assert files["results-tiny.svg"].strip().startswith("<svg")


def test_precisions_have_a_row_each_and_a_column_a_file(script: Script) -> None:
    timings = [
        result(name, keep, backend, precision, timing=Timing(9.0, 9.0 / ratio), share=share)
        for backend in ("onnxruntime", "openvino")
        for precision, ratio in (("fp32", 1.0), ("int8", 0.25))
        for name, keep, share in (("dense", 0.5, None), ("measured", 0.5, 0.9), ("paper", 0.743, 0.8))
    ]
    pages = script("pages")
    files = pages.precision([pages.Measured("tiny", "Tiny", [], {"timings": timings[:-1]})], "precision", 1)
    page = files["precision.md"]
    assert "relative to dense fp32 (9.0 ms on ONNX Runtime and 9.0 ms on OpenVINO)" in page
    assert "| runtime | precision | dense | measured 0.5 | paper 0.743 |" in page
    assert "| ONNX Runtime | int8 | 0.250 | 0.250 (90%) | 0.250 (80%) |" in page
    assert "| OpenVINO | int8 | 0.250 | 0.250 (90%) |  |" in page
    assert "precision-tiny.svg" in files


@pytest.mark.full
def test_precisions_are_measured_in_parts(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    low = ["bf16"] if openvino_has("BF16") else []  # what the CPU lacks is left out
    output, run, bench = tmp_path / "precision", script("run"), script("bench")
    common = ["precision", "digits", "--limit", "8", "--amounts", "0.7", "--methods", "measured"]
    common += ["--backends", "openvino", "--seconds", "0", "--loads", "1", "--output", str(output)]
    monkeypatch.setattr(bench, "footprint_of", lambda path, running: Footprint(1_000_000, 70.0, 200.0, 1))
    run.main([*common, "--precisions", "fp32,int8,bf16"])
    model = kept(script, output, "precision")
    names = [(row.precision, row.name) for row in model.part("timings")]
    assert names == [(name, form) for name in ("fp32", *low, "int8") for form in ("dense", "measured")]
    dense, reduced = model.part("accuracies")[:2]
    assert model.part("timings")[0].ratio == 1 and dense.distance == 0 < reduced.distance
    assert [row.precision for row in model.part("twins")] == [*low, *low, "int8", "int8"]
    assert {row.cost.peak_mib for row in model.part("costs")} == {70.0}
    monkeypatch.setattr(bench.Graphs, "graph", lambda *given: pytest.fail("all is measured"))
    run.main([*common, "--precisions", "fp32,int8"])
    assert kept(script, output, "precision").part("timings") == model.part("timings")


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
