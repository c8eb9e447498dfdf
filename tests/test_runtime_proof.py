"""The runtime proves and measures: validate, benchmark, evaluate, and what it keeps of that."""

import shutil
from pathlib import Path

import pytest
from artifacts import ONE_OF_EACH, SEVEN

import gtp_runtime
from gtp_runtime import Model, read_manifest
from gtp_runtime import model as model_module


@pytest.mark.parametrize("name", ["model.onnx", "dense.onnx"])
def test_validates_every_file(digits: Path, name: str) -> None:
    shares: list[float] = []
    with gtp_runtime.load(digits / name) as loaded:
        parity = loaded.validate(shares.append)
    assert parity.ok, parity.problems
    assert (parity.images, parity.top1_agreement, shares[-1]) == (360, 1.0, 1.0)
    assert parity.top1 is not None and parity.top1 > 0.95
    assert parity.dense_top1 is not None and parity.dense_top1 > 0.95
    assert parity.kept_agreement is None if name == "dense.onnx" else parity.kept_agreement == 1.0


def test_results_are_kept_in_the_manifest(digits_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gtp_runtime.load(digits_copy) as loaded:
        assert loaded.record("parity", {"ok": True})
        assert loaded.record("latency", {"p50_ms": 1.5})
        before = read_manifest(digits_copy)
        assert before.results == {"parity": {"model.onnx": {"ok": True}}, "latency": {"model.onnx": {"p50_ms": 1.5}}}
        monkeypatch.setattr(model_module, "write_manifest", lambda *arguments: Path("missing/file").touch())
        assert not loaded.record("parity", {"ok": False})
    assert read_manifest(digits_copy) == before


def test_benchmarks_files_in_turn(digits: Path, model: Model) -> None:
    shares: list[float] = []
    with gtp_runtime.load(digits / "dense.onnx", threads=1) as dense:
        first, second = gtp_runtime.benchmark([dense, model], seconds=0.1, progress=shares.append)
    assert [Path(first.file).name, Path(second.file).name] == ["dense.onnx", "model.onnx"]
    assert first.runs == second.runs >= 10
    assert 0.5 < (second.macs_ratio or 0) < 0.9
    assert second.share is not None
    assert shares[-1] == 1.0
    assert model.benchmark(seconds=0).runs == 10


def test_evaluates_an_image_folder(digits: Path, model: Model, tmp_path: Path) -> None:
    for digit, image in enumerate(ONE_OF_EACH):
        claimed = tmp_path / str(9 if digit == 8 else digit)  # one lie
        claimed.mkdir(exist_ok=True)
        shutil.copy(image, claimed / f"{digit}.png")
    alone = gtp_runtime.evaluate(model, None, tmp_path)
    assert (alone.images, alone.top1, alone.dense_top1, alone.agreement) == (10, 0.9, None, None)
    with gtp_runtime.load(digits / "dense.onnx") as dense:
        beside = gtp_runtime.evaluate(model, dense, tmp_path)
    assert (beside.top1, beside.dense_top1, beside.agreement) == (0.9, 0.9, 1.0)
    assert beside.top5 is not None and beside.top5 >= 0.9
    shutil.copy(SEVEN, tmp_path)
    flat = gtp_runtime.evaluate(model, None, tmp_path)
    assert (flat.images, flat.top1) == (11, None)


def test_the_sample_needs_no_parity_pack(digits_copy: Path) -> None:
    (digits_copy / "reference.npz").unlink()
    with gtp_runtime.load(digits_copy) as loaded:
        assert loaded.sample().shape == (1, 3, 32, 32)
        loaded.warmup(1)
