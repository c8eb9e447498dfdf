"""What a first use gets wrong is answered with what helps: the command that makes the file, the right order."""

from pathlib import Path
from typing import Any

import pytest
from artifacts import SEVEN, Command

from gtp_export import console, tables
from gtp_exporters import CompareOptions, export
from gtp_exporters.errors import LimitError
from gtp_runtime.latency import against_first, summarise


def test_a_missing_engine_is_built_not_exported(command: Command, digits: Path) -> None:
    ran = command("validate", digits / "model.engine")
    assert ran.code == 1
    assert f"build-engine {digits / 'model.onnx'}" in ran.error and "gtp-export export" not in ran.error


def test_an_image_before_the_model(command: Command, digits: Path) -> None:
    for model in (digits, digits / "model.onnx"):
        ran = command("predict", SEVEN, model)
        assert ran.code == 2
        assert f"predict {model} {SEVEN}" in ran.error.replace("  ", " ") or "comes first" in ran.error


def test_a_graph_in_the_place_of_a_directory(command: Command, digits: Path) -> None:
    ran = command("quantize", digits / "model.onnx", "--target", "onnxruntime")
    assert ran.code == 2
    assert "give its directory" in ran.error


@pytest.mark.parametrize("name", ["models", "methods"])
def test_every_command_takes_v(command: Command, name: str) -> None:
    assert command(name, "-v").code == 0


def test_a_module_is_no_name() -> None:
    module: Any = object()
    with pytest.raises(TypeError, match="recipe"):
        export(module)
    with pytest.raises(LimitError):
        CompareOptions(budgets=(0.75,))  # type: ignore[arg-type]


def test_a_file_alone_has_no_share_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, ...]] = []
    monkeypatch.setattr(console, "table", lambda title, columns, rows: shown.append(tuple(columns)))
    one = summarise("model.onnx", 1, [0.001, 0.002])
    tables.latency_table(against_first([one], [10], ["gtp"]), "")
    tables.latency_table(against_first([one, one], [10, 5], ["dense", "gtp"]), "")
    assert "MACs" not in shown[0] and "MACs" in shown[1]


def test_a_share_of_noise_is_no_number(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[tuple[str, ...]] = []
    monkeypatch.setattr(console, "table", lambda title, columns, rows: shown.extend(rows))
    dense, calm = (summarise(name, 1, [seconds] * 9) for name, seconds in (("dense.onnx", 0.002), ("calm.onnx", 0.001)))
    wild = summarise("wild.onnx", 1, [0.001] * 8 + [0.05])
    tables.latency_table(against_first([dense, calm], [10, 5], ["dense", "gtp"]), "")
    tables.latency_table(against_first([dense, wild], [10, 5], ["dense", "gtp"]), "")
    assert [row[-1] for row in shown] == ["-", "100%", "-", "noise"]
    assert "wild.onnx" in capsys.readouterr().err


def test_a_budget_acts_on_a_dense_file_alone(command: Command, digits: Path) -> None:
    quick = ("bench", "--no-footprint", "--seconds", "0")
    assert command(*quick, digits / "dense.onnx", "--budget-ms", "0.0001ms").code == 5
    assert command(*quick, digits / "dense.onnx", "--budget-ms", "1h").code == 0


def test_a_layer_that_is_not_there(command: Command) -> None:
    ran = command("export", "digits", "--schedule", "at:99", "--keep", "0.8", "-q")
    assert ran.code == 2
    assert "layer 99" in ran.error and "6 layers" in ran.error
