"""The script that measures precisions, on little."""

import json
from pathlib import Path
from typing import Any

import pytest
from scripts import Script

from gtp_runtime import Footprint


def test_precisions_are_measured_in_parts(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    output, precision = tmp_path / "precision", script("precision")

    def run(*arguments: str) -> dict[str, Any]:
        common = ["digits", "--limit", "8", "--settings", "measured:0.7", "--seconds", "0", "--rounds", "1"]
        precision.main([*common, "--output", str(output), "--place", str(tmp_path / "place"), *arguments])
        found: dict[str, Any] = json.loads(output.with_suffix(".json").read_text("utf-8"))["digits"]
        return found

    small = {"file_bytes": 1_000_000, "peak_mib": 70.0, "cold_start_ms": 200.0, "starts": 1}
    monkeypatch.setattr(precision, "measure_footprint", lambda *given, **options: Footprint(**small))
    found = run("--precisions", "fp32,int8,bf16", "--backends", "openvino")
    names = [(entry["precision"], entry["form"]) for entry in found["latency"]]
    assert names == [(name, form) for name in ("fp32", "bf16", "int8") for form in ("dense", "measured")]
    assert [entry["share"] is None for entry in found["latency"]] == [True, False] * 3
    dense, reduced = found["accuracy"][:2]
    assert found["latency"][0]["ratio"] == 1 and dense["divergence"] == reduced["twin_divergence"] == 0
    assert reduced["divergence"] > 0
    assert {entry["peak_mib"] for entry in found["footprint"]} == {70.0}
    assert output.with_name("precision-digits-openvino.png").stat().st_size > 1000
    monkeypatch.setattr(precision, "make", lambda *given: pytest.fail("the files are there"))
    again = run("--parts", "accuracy", "--limit", "9", "--precisions", "fp32,int8", "--backends", "openvino")
    assert again["latency"] == found["latency"], "what is not measured again stays"
    assert [entry["images"] for entry in again["accuracy"]] == [9, 9, 8, 8, 9, 9]


def entry(backend: str, precision: str, form: str, keep: str, **figures: float | None) -> dict[str, Any]:
    return {"backend": backend, "precision": precision, "form": form, "keep": keep} | figures


def test_the_page_has_a_row_a_precision_and_a_column_a_file(script: Script, tmp_path: Path) -> None:
    timed: list[dict[str, Any]] = [
        entry(backend, precision, form, keep, macs=float(keep), ms=9.0, ratio=ratio, share=share)
        for backend in ("onnxruntime", "openvino")
        for precision, ratio in (("fp32", 1.0), ("int8", 0.25))
        for form, keep, share in (("dense", "1", None), ("measured", "0.5", 0.9), ("paper", "0.743", 0.8))
    ]
    script("precision_page").write({"tiny": {"title": "Tiny", "latency": timed[:-1]}}, tmp_path / "precision")
    page = (tmp_path / "precision.md").read_text("utf-8")
    assert "relative to dense fp32 (9.0 ms on ONNX Runtime and 9.0 ms on OpenVINO)" in page
    assert "| runtime | precision | dense | measured 0.5 | paper 0.743 |" in page
    assert "| ONNX Runtime | int8 | 0.250 | 0.250 (90%) | 0.250 (80%) |" in page
    assert "| OpenVINO | int8 | 0.250 | 0.250 (90%) |  |" in page
    assert (tmp_path / "precision-tiny-openvino.png").stat().st_size > 1000


def test_a_measurement_takes_the_place_of_the_earlier_one(script: Script) -> None:
    known = [entry("openvino", "fp32", "dense", "1", ms=1), entry("onnxruntime", "int8", "paper", "0.5", ms=2)]
    found = [entry("openvino", "fp32", "dense", "1", ms=3), entry("onnxruntime", "int8", "dense", "1", ms=4)]
    assert [one["ms"] for one in script("precision").merged(known, found)] == [4, 2, 3]
