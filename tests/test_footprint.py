"""Size, peak memory and cold start of files, and the limits of latency that bench fails over."""

import json
from pathlib import Path
from typing import Any

import pytest
from artifacts import Command, python
from test_cli import document

import gtp_runtime
from gtp_export.commands.bench import Budget, over_budget, slower_than_dense
from gtp_runtime import Footprint, Latency, footprint, measure_footprint
from gtp_runtime.errors import DeviceError, InputError, ManifestError
from gtp_runtime.footprint import peak_bytes
from gtp_runtime.latency import summarise
from gtp_runtime.manifest import read_manifest

BENCH = ("bench", "--seconds", "0")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_process_of_its_own_is_measured(digits: Path, backend: str) -> None:
    found = measure_footprint(digits, backend, starts=1, threads=1)
    assert found.file_bytes == (digits / "model.onnx").stat().st_size
    assert found.peak_mib is not None and found.cold_start_ms is not None
    assert 20 < found.peak_mib < 1000, "not that of this process, which has loaded torch"
    assert 10 < found.cold_start_ms < 60_000
    assert found.starts == 1


def test_the_process_loads_no_torch(digits: Path) -> None:
    request = json.dumps([str(digits), "auto", {}])
    start = f"from gtp_runtime import footprint, load; footprint.first_answer(load, ['0', {request!r}])"
    ran = python(f"{start}; assert 'torch' not in sys.modules")
    assert ran.code == 0, ran.err
    seconds, peak = json.loads(ran.out.splitlines()[-1])
    assert seconds > 0 and peak > 2**20


def test_medians_of_several_starts(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = iter([(0.3, 3 * 2**20), (0.1, 2**20), (0.2, 2 * 2**20)])
    monkeypatch.setattr(footprint, "_start", lambda request: next(starts))
    assert measure_footprint(digits) == Footprint((digits / "model.onnx").stat().st_size, 2.0, 200.0, 3)


def test_weights_beside_a_graph_count(digits_copy: Path) -> None:
    path = digits_copy / "model.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["files"]["model.onnx"]["external_data"] = "model.onnx.data"
    manifest["files"]["model.onnx.data"] = {"role": "data", "sha256": "0" * 64, "size": 1000}
    path.write_text(json.dumps(manifest), "utf-8")
    assert footprint.file_bytes(digits_copy) == (digits_copy / "model.onnx").stat().st_size + 1000


@pytest.mark.parametrize("starts", [0, -1, 1.5, True, "3"])
def test_starts_that_are_none(digits: Path, starts: Any) -> None:
    with pytest.raises(InputError, match=r"^starts="):
        measure_footprint(digits, starts=starts)


def test_a_file_that_no_process_can_run(digits_copy: Path, tmp_path: Path) -> None:
    (digits_copy / "model.onnx").write_bytes(b"changed")
    with pytest.raises(DeviceError, match=r"ManifestError: .*sha256 differs"):
        measure_footprint(digits_copy)
    with pytest.raises(ManifestError):
        measure_footprint(tmp_path / "nothing.onnx")


def test_a_process_that_does_not_start_or_says_nothing(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint.sys, "executable", "/nothing/python")  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match="could not run"):
        measure_footprint(digits)
    monkeypatch.setattr(footprint.sys, "executable", "/bin/true")  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match="exit code 0"):
        measure_footprint(digits)


def test_peak_memory_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "STATUS", Path("/nothing/status"))
    assert peak_bytes() > 10 * 2**20


def test_bench_reports_size_memory_and_cold_start(command: Command, digits_copy: Path) -> None:
    ran = command(*BENCH, digits_copy)
    assert ran.code == 0, ran.err
    assert "peak memory MiB" in ran.out and "cold start ms" in ran.out
    found = document(command(*BENCH, digits_copy, "--json"))["files"]
    assert [entry["footprint"]["starts"] for entry in found] == [3, 3]
    kept = read_manifest(digits_copy).results["latency"]
    assert kept["model.onnx"]["footprint"].keys() == {"file_bytes", "peak_mib", "cold_start_ms", "starts"}
    assert document(command(*BENCH, digits_copy, "--json", "--no-footprint"))["files"][0]["footprint"] is None


def test_bench_says_what_no_process_could_run(
    command: Command, digits_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint.sys, "executable", "/nothing/python")  # type: ignore[attr-defined]
    ran = command(*BENCH, digits_copy, "--json")
    assert ran.code == 0
    assert f"note: memory and cold start of {digits_copy / 'model.onnx'} are not measured" in ran.error
    cost = document(ran)["files"][1]["footprint"]
    assert (cost["peak_mib"], cost["cold_start_ms"], cost["starts"]) == (None, None, 0)
    assert cost["file_bytes"] > 0


def taking(name: str, *milliseconds: float) -> Latency:
    return summarise(name, 1, [taken / 1000 for taken in milliseconds])


def test_a_budget_is_of_a_percentile() -> None:
    results = [taking("dense", *[50.0] * 100), taking("model", *[10.0] * 95, *[30.0] * 5)]
    assert over_budget(results, [True, False], Budget("p50", 20)) == []
    missed = over_budget(results, [True, False], Budget("p99", 20))
    assert missed == ["model: p99 30.00 ms is over the budget of 20 ms"]


def test_bench_takes_a_percentile(command: Command, digits_copy: Path) -> None:
    bench = (*BENCH, digits_copy, "--no-footprint", "--budget-ms")
    ran = command(*bench, "p99:0.0001")
    assert ran.code == 5
    assert "model.onnx: p99" in ran.error and "budget of 0.0001 ms" in ran.error
    assert command(*bench, "p90:10000").code == 0


@pytest.mark.parametrize("value", ["p98:20", ":20", "p99:", "p99", "p99:nan", "p99:0", "p50:-1", "20mb"])
def test_budgets_that_are_none(command: Command, digits: Path, value: str) -> None:
    ran = command(*BENCH, digits, "--budget-ms", value)
    assert ran.code == 2
    assert "'--budget-ms'" in ran.error


def test_beating_dense_is_beating_the_fastest() -> None:
    results = [taking("dense", 10.0), taking("dense.int8", 5.0), taking("model", 7.0), taking("model.int8", 4.0)]
    missed = slower_than_dense(results, [True, True, False, False])
    assert missed == ["model: p50 7.00 ms does not beat dense: dense.int8 takes 5.00 ms"]


def test_bench_must_beat_dense(command: Command, digits_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = (*BENCH, "--no-footprint", "--must-beat-dense", digits_copy)
    for model, code in ((9.0, 0), (11.0, 5)):
        found = [taking("dense.onnx", 10.0), taking("model.onnx", model)]
        monkeypatch.setattr(gtp_runtime, "benchmark", lambda *arguments, found=found: found)
        ran = command(*bench)
        assert ran.code == code
    assert "model.onnx: p50 11.00 ms" in ran.error
    alone = command(*bench[:-1], digits_copy / "dense.onnx")
    assert alone.code == 2
    assert "--must-beat-dense" in alone.error
