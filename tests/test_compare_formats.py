"""``compare`` and ``tune`` on runtimes that run no ONNX files: each file is made once, checked, measured."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifacts import ONE_OF_EACH, TINY, Command
from test_converting import needs_litert, needs_mnn, needs_onnx2tf

from gtp_exporters import CompareOptions, ConversionError, compare
from gtp_exporters.converting.formats import FORMATS
from gtp_exporters.errors import LimitError
from gtp_exporters.measuring import grid
from gtp_exporters.measuring.candidate import Running, make_runnings, running_on
from gtp_exporters.measuring.choice import Limit, TuneOptions
from gtp_exporters.measuring.comparison import Budget
from gtp_runtime.errors import BackendMissingError, InputError

QUICK: dict[str, Any] = {"seconds": 0.0, "rounds": 1, "footprint": False}
pytestmark = pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")
MAKES = [lambda name: make_runnings([name], ["fp32"], {}, {}), lambda name: running_on(name, {})]


@pytest.fixture
def options(tmp_path: Path) -> CompareOptions:
    """Of a comparison of one method at two budgets on MNN, on ten images without classes."""
    (tmp_path / "images").mkdir()
    for number, image in enumerate(ONE_OF_EACH):
        shutil.copy(image, tmp_path / "images" / f"{number}.png")
    budgets = (Budget(keep=0.75), Budget(keep=0.6))
    return CompareOptions(("measured",), budgets, ("mnn",), data=tmp_path / "images", **QUICK)


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each graph was converted to an MNN file."""
    counts: Counter[bytes] = Counter()
    convert = FORMATS["mnn"].convert

    def counting(graph: Path, target: Path, precision: str) -> str:
        counts[graph.read_bytes()] += 1
        return convert(graph, target, precision)

    monkeypatch.setitem(FORMATS, "mnn", replace(FORMATS["mnn"], convert=counting))
    return counts


@needs_mnn
def test_each_candidate_is_converted_once_and_measured_there(
    options: CompareOptions, converted: Counter[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = grid._Grid.measure

    def stopped(self: Any, cases: Any, candidates: Any, what: str) -> Any:
        if what.startswith("part 2"):
            raise KeyboardInterrupt
        return measure(self, cases, candidates, what)

    monkeypatch.setattr(grid._Grid, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare(TINY, tmp_path / "out", options=options, weights="random")
    monkeypatch.setattr(grid._Grid, "measure", measure)
    assert sorted(converted.values()) == [1, 1, 1], "dense, and each budget"
    found = compare(TINY, tmp_path / "out", options=options, weights="random")
    assert sorted(converted.values()) == [1, 2, 2], "what was measured is not converted again"
    assert [(row.name, row.backend, row.budget.get("keep")) for row in found.rows] == [
        ("dense", "mnn", None),
        ("measured", "mnn", 0.75),
        ("measured", "mnn", 0.6),
    ]
    assert found.rows[0].distance == 0 and all(row.distance > 0 and row.ratio > 0 for row in found.rows[1:])
    assert all(row.convert == ["--to", "mnn"] and "--precision" not in row.command for row in found.rows)
    assert not found.skipped


@needs_mnn
def test_a_file_that_answers_otherwise_is_named_and_not_measured(
    options: CompareOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([1.0, 1.0, 0.5])  # dense, and the budgets
    monkeypatch.setattr("gtp_exporters.measuring.graphs.share_alike", lambda *_: next(shares))
    found = compare(TINY, tmp_path / "out", options=options, weights="random")
    assert [row.budget for row in found.rows] == [{}, {"keep": 0.75}]
    assert [(entry.what, "50%" in entry.why) for entry in found.skipped] == [("measured at 0.6 on mnn fp32", True)]
    monkeypatch.setattr("gtp_exporters.measuring.graphs.share_alike", lambda *_: 0.0)
    with pytest.raises(ConversionError, match="mnn"):
        compare(TINY, tmp_path / "none", options=options, weights="random")
    assert not (tmp_path / "none").exists()


@pytest.mark.full
@needs_mnn
def test_token_merging_is_not_measured_where_mnn_writes_it_wrongly(tmp_path: Path) -> None:
    """MNN 3.6.1 converts its graph without an error, and removes other tokens."""
    wanted = {"methods": ("measured", "tome"), "budgets": (Budget(keep=0.75),), "precisions": ("fp16", "int8")}
    found = compare("digits", tmp_path, options=CompareOptions(backends=("mnn",), limit=40, **wanted, **QUICK))
    dense = {("dense", precision) for precision in ("fp32", "fp16", "int8")}
    assert {(row.name, row.precision) for row in found.rows} == {*dense, ("measured", "fp16"), ("measured", "int8")}
    assert {entry.what for entry in found.skipped} == {f"tome at 0.75 on mnn {name}" for name in ("fp16", "int8")}
    assert {tuple(row.convert) for row in found.rows if row.precision == "fp16"} == {
        ("--to", "mnn", "--precision", "fp16")
    }


@pytest.mark.full
@needs_litert
@needs_onnx2tf
def test_litert_is_compared_in_int8(tmp_path: Path) -> None:
    wanted = {"methods": ("measured",), "budgets": (Budget(keep=0.75),), "precisions": ("fp32", "int8")}
    found = compare("digits", tmp_path, options=CompareOptions(backends=("litert",), limit=40, **wanted, **QUICK))
    rows = {(row.name, row.precision): row for row in found.rows}
    assert set(rows) == {(name, precision) for precision in ("fp32", "int8") for name in ("dense", "measured")}
    sizes = {name: row.cost.file_bytes for name, row in rows.items() if row.cost is not None}
    assert sizes["measured", "int8"] < 0.6 * sizes["measured", "fp32"]
    assert 0 < rows["dense", "int8"].distance < 1


@pytest.mark.full
@needs_mnn
def test_mnn_is_tuned(command: Command, tmp_path: Path) -> None:
    place = tmp_path / "found"
    wanted = ("--max-drop", 50, "--trials", 2, "--images", 32, "--threads", 1, "--backend", "mnn", "-o", place)
    ran = command("tune", "digits", *wanted)
    found = json.loads((place / "tune.json").read_text("utf-8"))
    assert found["backend"]["name"] == "mnn" and found["validated"]["default"]["distance"] > 0
    assert {one["backend"] for one in found["results"]} == {"mnn"}
    assert any(one["precision"] == "int8" for one in found["results"])
    assert ran.code in (0, 3), ran.err
    if not ran.code:
        assert ran.last.startswith("then: gtp-export convert ") and "--to mnn" in ran.last
    again = command("tune", "digits", *wanted)
    assert again.code == ran.code and json.loads((place / "tune.json").read_text("utf-8"))["trials"] == found["trials"]


def test_precisions_are_those_of_the_format() -> None:
    runs = make_runnings(["mnn"], ["fp16"], {}, {"threads": 1})
    assert [(run.label, run.written, run.format, run.options) for run in runs] == [
        ("mnn fp32", "fp32", "mnn", {"threads": 1}),
        ("mnn fp16", "fp16", "mnn", {"threads": 1}),
    ]
    assert runs[1].conversion == ["--to", "mnn", "--precision", "fp16"] and not Running("onnxruntime").conversion
    assert "int8_weights" in runs[0].precisions
    TuneOptions(Limit(max_drop=1), running=runs[0], precisions=("fp32", "int8_weights"))
    with pytest.raises(LimitError, match="int4_weights"):
        TuneOptions(Limit(max_drop=1), running=runs[0], precisions=("int4_weights",))


@pytest.mark.parametrize("make", MAKES)
def test_what_is_not_measured_is_refused_early(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"simulated.*build-engine"):
        make("qnn")
    for name in ("coreml", "tensorrt"):
        with pytest.raises(InputError, match=f"{name}.* choose from executorch, litert, mnn"):
            make(name)
    monkeypatch.setattr("gtp_runtime.extras.is_installed", lambda module: False)
    for name in ("executorch", "litert", "mnn"):
        with pytest.raises(BackendMissingError, match=rf"gtp-export.*\[{name}\]"):
            make(name)
