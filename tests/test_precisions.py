"""The registry of precisions: complete, listed without onnx, and known to the runtime's gates."""

import pytest
from artifacts import Command, python

from gtp_exporters.limits import TARGETS
from gtp_exporters.precisions import converted_names, find_precision, precision_names
from gtp_runtime.parity import LIMITS


def test_every_precision_says_what_the_registry_asks_for() -> None:
    assert precision_names()[0] == "fp32"
    for name in precision_names():
        entry = find_precision(name)
        assert callable(entry.convert) and callable(entry.matches)
        assert entry.TARGETS and set(entry.TARGETS) <= set(TARGETS)
    assert converted_names("tensorrt") == ("fp32", "bf16", "fp16")
    assert converted_names("onnxruntime") == ("fp32", "bf16", "fp16", "int4_weights", "int8_weights")


def test_the_runtime_has_an_error_limit_for_each() -> None:
    assert set(precision_names()) == set(LIMITS)


def test_listing_loads_neither_onnx_nor_torch() -> None:
    loaded = "print([name for name in ('onnx', 'onnx_ir', 'torch') if name in sys.modules])"
    code = f"from gtp_exporters.precisions import find_precision, precision_names as names; {loaded}"
    assert python(code.replace("; print", "; [find_precision(name) for name in names()]; print")).last == "[]"


@pytest.mark.parametrize(
    ("name", "listed"), [("export", precision_names()), ("build-engine", converted_names("tensorrt"))]
)
def test_help_lists_them_all(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, listed: tuple[str, ...]
) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    monkeypatch.setenv("COLUMNS", "400")
    assert ", ".join(listed) in " ".join(command(name, "--help").out.split())
