"""The table of precisions: complete, listed without onnx, and each entry is all that the exporter needs."""

import pytest
from artifacts import Command, python
from onnx_graphs import tiny_graph

from gtp_exporters.errors import LimitError
from gtp_exporters.graph.check import infer_shapes
from gtp_exporters.graph.precision import precision_of, to_precision
from gtp_exporters.options import check_precision
from gtp_runtime.precisions import PRECISIONS, TARGETS, WITHOUT_SORT, Floats, ParityLimits, Precision, converted_names


def test_every_entry_names_targets_and_limits() -> None:
    assert next(iter(PRECISIONS)) == "fp32"
    for entry in PRECISIONS.values():
        assert entry.targets and set(entry.targets) <= {*TARGETS, *WITHOUT_SORT}
        assert entry.parity.error > 0 and entry.calibrated == (entry.gate is not None)
    assert converted_names("tensorrt") == ("fp32", "fp16", "bf16")
    assert converted_names("onnxruntime") == ("fp32", "fp16", "bf16", "int8_weights", "int4_weights")


def test_an_entry_is_all_that_a_precision_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        PRECISIONS, "fp8", Precision(Floats("FLOAT8E4M3FN"), ParityLimits(0.5, 0.0), targets=("onnxruntime",))
    )
    assert check_precision("fp8", "onnxruntime").parity.error == 0.5
    assert "fp8" in converted_names("onnxruntime") and "fp8" not in converted_names("tensorrt")


@pytest.mark.parametrize(("name", "target"), [("fp7", None), ("int4_weights", "tensorrt")])
def test_a_precision_that_no_one_runs_is_refused(name: str, target: str | None) -> None:
    with pytest.raises(LimitError, match=name):
        check_precision(name, target)


@pytest.mark.parametrize("name", converted_names("onnxruntime"))
def test_a_converted_graph_is_recognised(name: str) -> None:
    assert precision_of(to_precision(infer_shapes(tiny_graph()), name)) == name


def test_a_calibrated_precision_is_not_converted_to() -> None:
    with pytest.raises(LimitError, match="quantize"):
        to_precision(infer_shapes(tiny_graph()), "int8")


def test_listing_loads_neither_onnx_nor_torch() -> None:
    loaded = "print([name for name in ('onnx', 'onnx_ir', 'torch') if name in sys.modules])"
    assert python(f"import gtp_exporters.options, gtp_runtime.precisions; {loaded}").last == "[]"


@pytest.mark.parametrize(
    ("name", "listed"), [("export", tuple(PRECISIONS)), ("build-engine", converted_names("tensorrt"))]
)
def test_help_lists_them_all(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, listed: tuple[str, ...]
) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    monkeypatch.setenv("COLUMNS", "400")
    assert ", ".join(listed) in " ".join(command(name, "--help").out.split())
