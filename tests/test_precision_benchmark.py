"""The script that measures precisions, on little."""

import json
from pathlib import Path
from typing import Any

import pytest
from scripts import Script


def test_every_precision_is_measured(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    output = tmp_path / "precision"
    precision: Any = script("precision")
    short = ["--limit", "8", "--keep", "0.7", "--forms", "measured", "--seconds", "0", "--rounds", "1"]
    monkeypatch.setattr(precision, "memory", lambda place: precision.memory_of(place, precision.CASES[:1]))
    precision.main(["digits", *short, "--output", str(output)])
    (row,) = json.loads(output.with_suffix(".json").read_text("utf-8"))["digits"]["rows"]
    cases = [(case.backend, case.label) for case in precision.CASES]
    assert [(entry["backend"], entry["precision"]) for entry in row["latency"]] == cases
    assert row["latency"][0]["dense"] == 1
    assert [entry["file"] for entry in row["accuracy"]] == ["dense", "gtp"] * len(cases)
    assert row["accuracy"][0]["divergence"] == row["accuracy"][1]["twin_divergence"] == 0
    assert all(entry["peak_mib"] > entry["mb"] > 0 for entry in row["memory"])
    page = output.with_suffix(".md").read_text("utf-8")
    assert "| measured | 0.7 | OpenVINO | int8, rest bf16 |" in page
    assert output.with_name("precision-digits.png").stat().st_size > 1000
