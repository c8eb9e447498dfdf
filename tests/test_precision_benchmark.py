"""The script that measures precisions, on little."""

import json
from pathlib import Path
from typing import Any

import pytest
from scripts import Script

from gtp_runtime import Footprint


def test_every_precision_is_measured(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    output = tmp_path / "precision"
    precision: Any = script("precision")
    short = ["--limit", "8", "--keep", "0.7", "--forms", "measured", "--seconds", "0", "--rounds", "1"]
    found = {"file_bytes": 1_000_000, "peak_mib": 70.0, "cold_start_ms": 200.0, "starts": 1}
    monkeypatch.setattr(precision, "measure_footprint", lambda *given, **options: Footprint(**found))
    precision.main(["digits", *short, "--output", str(output), "--place", str(tmp_path / "place")])
    (row,) = json.loads(output.with_suffix(".json").read_text("utf-8"))["digits"]["rows"].values()
    cases = [(case.backend, case.label) for case in precision.CASES]
    assert [(entry["backend"], entry["precision"]) for entry in row["latency"]] == cases
    assert row["latency"][0]["dense"] == 1
    assert [entry["file"] for entry in row["accuracy"]] == ["dense", "gtp"] * len(cases)
    assert row["accuracy"][0]["divergence"] == row["accuracy"][1]["twin_divergence"] == 0
    assert {entry["peak_mib"] for entry in row["footprint"]} == {70.0}
    page = output.with_suffix(".md").read_text("utf-8")
    assert "| measured | 0.7 | OpenVINO | int8 and bf16 |" in page
    assert output.with_name("precision-digits.png").stat().st_size > 1000
    again = ["--parts", "accuracy", "--precisions", "int8", "--backends", "onnxruntime"]
    monkeypatch.setattr(precision, "make", lambda *given: pytest.fail("the files are there"))
    precision.main(["digits", *short, *again, "--output", str(output), "--place", str(tmp_path / "place")])
    (row,) = json.loads(output.with_suffix(".json").read_text("utf-8"))["digits"]["rows"].values()
    assert len(row["latency"]) == len(cases), "what is not measured again stays"
    assert [entry["precision"] for entry in row["accuracy"]] == ["fp32", "fp32", "int8", "int8"]
