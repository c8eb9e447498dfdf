"""The runtime proves and measures: validate, benchmark, evaluate, and what it keeps of that."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import ONE_OF_EACH, SEVEN

import gtp_runtime
from gtp_runtime import Model, read_manifest
from gtp_runtime.errors import ImageError, InputError
from gtp_runtime.manifest import reading, write_manifest


@pytest.mark.parametrize("name", ["model.onnx", "dense.onnx"])
def test_validates_every_file(digits: Path, name: str) -> None:
    told: list[tuple[str, float | None]] = []
    with gtp_runtime.load(digits / name) as loaded:
        parity = loaded.validate(lambda task, share=None: told.append((task, share)))
    assert parity.ok, parity.problems
    assert (parity.images, parity.top1_agreement, told[-1]) == (360, 1.0, ("validating", 1.0))
    assert parity.top1 is not None and parity.top1 > 0.95
    assert parity.dense_top1 is not None and parity.dense_top1 > 0.95
    assert parity.kept_agreement is None if name == "dense.onnx" else parity.kept_agreement == 1.0


def test_results_are_kept_in_the_manifest(digits_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(replace(read_manifest(digits_copy), results={}), digits_copy)
    with gtp_runtime.load(digits_copy) as loaded:
        assert loaded.record("parity", {"ok": True})
        assert loaded.record("latency", {"p50_ms": 1.5})
        before = read_manifest(digits_copy)
        assert before.results == {"parity": {"model.onnx": {"ok": True}}, "latency": {"model.onnx": {"p50_ms": 1.5}}}
        monkeypatch.setattr(reading, "write_manifest", lambda *arguments: Path("missing/file").touch())
        assert not loaded.record("parity", {"ok": False})
    assert read_manifest(digits_copy) == before


def test_benchmarks_files_in_turn(digits: Path, model: Model) -> None:
    shares: list[float | None] = []
    with gtp_runtime.load(digits / "dense.onnx", threads=1) as dense:
        first, second = gtp_runtime.benchmark([dense, model], 0.1, lambda task, share=None: shares.append(share))
    assert [Path(first.file).name, Path(second.file).name] == ["dense.onnx", "model.onnx"]
    assert first.runs == second.runs >= 10
    assert 0.5 < (second.macs_ratio or 0) < 0.9
    assert second.share is not None
    assert shares[-1] == 1.0
    assert model.benchmark(seconds=0).runs == 10


def test_files_of_different_batches_are_not_compared(model: Model, batched: Model) -> None:
    with pytest.raises(InputError, match=r"model\.onnx: 1, .*onnx: 3\)"):
        gtp_runtime.benchmark([model, batched], 0)


@pytest.mark.parametrize("seconds", [np.inf, np.nan, -1, "3", True])
def test_seconds_are_checked(model: Model, seconds: Any) -> None:
    with pytest.raises(InputError, match=r"^seconds="):
        gtp_runtime.benchmark([model], seconds)
    with pytest.raises(InputError, match=r"^seconds="):
        model.benchmark(seconds)


def test_rounds_and_files_are_checked(model: Model, digits: Path) -> None:
    with pytest.raises(InputError, match=r"^rounds=0"):
        gtp_runtime.benchmark([model], 0, rounds=0)
    with pytest.raises(InputError, match=r"gtp_runtime\.load\(path\)"):
        gtp_runtime.benchmark([digits])  # type: ignore[list-item]
    with pytest.raises(InputError):
        gtp_runtime.benchmark([])


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
    assert beside.top1_drop == 0 and beside.top1_se == pytest.approx(0.1)
    assert beside.divergence is not None and 0 < beside.divergence < 0.1
    shutil.copy(SEVEN, tmp_path)
    flat = gtp_runtime.evaluate(model, None, tmp_path)
    assert (flat.images, flat.top1) == (11, None)


def test_classes_by_order_of_the_folders(model: Model, tmp_path: Path) -> None:
    for digit, image in enumerate(ONE_OF_EACH):
        (tmp_path / "abcdefghij"[digit]).mkdir()
        shutil.copy(image, tmp_path / "abcdefghij"[digit])
    with pytest.raises(ImageError, match=r"\(a, b, c, d, e, f, g, h, i, j\) .*--class-order"):
        gtp_runtime.evaluate(model, None, tmp_path)
    told: list[tuple[str, float | None]] = []
    found = gtp_runtime.evaluate(
        model, None, str(tmp_path), lambda task, share=None: told.append((task, share)), class_order="timm"
    )
    assert found.top1 == 1.0
    assert found.class_folders == {letter: digit for digit, letter in enumerate("abcdefghij")}
    assert told[-1] == ("measuring accuracy", 1.0)
    with pytest.raises(InputError):
        gtp_runtime.evaluate(model, None, 5)  # type: ignore[arg-type]
    shutil.copy(SEVEN, tmp_path)
    with pytest.raises(InputError, match="--class-order"):
        gtp_runtime.evaluate(model, None, tmp_path, class_order="timm")


def test_the_sample_needs_no_parity_pack(digits_copy: Path) -> None:
    (digits_copy / "reference.npz").unlink()
    with gtp_runtime.load(digits_copy) as loaded:
        assert loaded.sample().shape == (1, 3, 32, 32)
        loaded.timed()()
