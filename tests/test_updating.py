"""Manifests that several processes change, and engines beside them: no change is lost, and nothing is mixed."""

import fcntl
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts import DIGITS

import gtp_runtime
from gtp_exporters import QuantizeOptions, quantize
from gtp_exporters.errors import EngineError
from gtp_exporters.quantizing import run
from gtp_exporters.tensorrt import engine as engines
from gtp_runtime import atomic, read_manifest
from gtp_runtime.errors import ManifestError, OutputError
from gtp_runtime.manifest import EngineInfo, Manifest, check_file, update_manifest, write_manifest
from gtp_runtime.transaction import staged


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "PATIENCE", 0.05)


def place_engine(directory: Path, plan: bytes = b"plan", sha256: str | None = None, name: str = "model.engine") -> None:
    entry = read_manifest(directory).entry("model.onnx")
    info = EngineInfo("rtx", "1.3", "model.onnx", sha256 or entry.sha256, 10, 0.5)
    engines._write(directory / name, plan, replace(entry, engine=info), info)


def test_no_change_is_lost(digits_copy: Path) -> None:
    def add(name: str) -> None:
        for number in range(10):
            said = f"{name}{number}"
            update_manifest(digits_copy, lambda old, said=said: replace(old, notes=[*old.notes, said]))

    before = len(read_manifest(digits_copy).notes)
    threads = [threading.Thread(target=add, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_manifest(digits_copy).notes) == before + 30


@pytest.mark.usefixtures("impatient")
def test_all_writers_wait_for_the_lock(digits_copy: Path) -> None:
    with gtp_runtime.load(digits_copy) as loaded:
        with locked(digits_copy):
            assert not loaded.record("parity", {"ok": True})
            with pytest.raises(OutputError):
                place_engine(digits_copy)
        assert loaded.record("parity", {"ok": True})
    assert read_manifest(digits_copy).results["parity"] == {"model.onnx": {"ok": True}}


def test_engines_that_are_built_while_int8_files_are_put_in_place_stay(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is there with its cache of kernels; another is finished when the manifest was read for the last time."""
    place = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    place_engine(place)
    for name in ("model", "gone"):
        (place / f"{name}.rtx-cache").write_bytes(b"kernels")
    other = threading.Thread(target=place_engine, args=(place,), kwargs={"name": "late.engine"})
    write = run.write_manifest

    def interrupted(manifest: Manifest, directory: Path) -> None:
        write(manifest, directory)
        other.start()
        other.join(0.2)

    monkeypatch.setattr(run, "write_manifest", interrupted)
    quantize(place, QuantizeOptions("onnxruntime", DIGITS / "calibration", 16, data=DIGITS / "images", gate=False))
    other.join()
    manifest = read_manifest(place)
    assert {"model.engine", "late.engine", "model.int8.onnx"} <= set(manifest.files)
    for name in manifest.files:
        check_file(place / name, manifest)
    assert [path.name for path in place.glob("*.rtx-cache")] == ["model.rtx-cache"]


@pytest.mark.usefixtures("impatient")
def test_an_export_waits_for_the_lock_and_is_finished_later(digits_copy: Path) -> None:
    manifest = replace(read_manifest(digits_copy), notes=["new"])

    def export() -> None:
        with staged(digits_copy) as staging:
            for name in manifest.files:
                (staging.path / name).write_bytes((digits_copy / name).read_bytes())
            write_manifest(manifest, staging.path)
            staging.commit()

    with locked(digits_copy), pytest.raises(OutputError):
        export()
    with staged(digits_copy):
        assert read_manifest(digits_copy).notes == ["new"]


def test_a_file_system_without_locks(
    digits_copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*arguments: object) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(atomic.fcntl, "flock", refused)
    with caplog.at_level(logging.DEBUG, "gtp_runtime"):
        update_manifest(digits_copy, lambda old: replace(old, notes=["changed"]))
    assert read_manifest(digits_copy).notes == ["changed"]
    assert "no locks" in caplog.text


def test_a_result_belongs_to_the_file_that_was_measured(digits_copy: Path) -> None:
    with gtp_runtime.load(digits_copy) as loaded:
        manifest = read_manifest(digits_copy)
        other = replace(manifest.entry("model.onnx"), sha256="0" * 64)
        write_manifest(replace(manifest, files={**manifest.files, "model.onnx": other}), digits_copy)
        assert not loaded.record("parity", {"ok": True})
        write_manifest(replace(manifest, files={"reference.npz": manifest.files["reference.npz"]}), digits_copy)
        assert not loaded.record("parity", {"ok": True})
        (digits_copy / "model.json").unlink()
        assert not loaded.record("parity", {"ok": True})


def test_an_engine_of_another_graph_is_neither_listed_nor_loaded(digits_copy: Path) -> None:
    before = read_manifest(digits_copy)
    with pytest.raises(EngineError, match=r"model\.onnx was replaced"):
        place_engine(digits_copy, sha256="0" * 64)
    assert read_manifest(digits_copy) == before
    assert not (digits_copy / "model.engine").exists()
    place_engine(digits_copy)
    manifest = read_manifest(digits_copy)
    check_file(digits_copy / "model.engine", manifest)
    graph = replace(manifest.entry("model.onnx"), sha256="0" * 64)
    with pytest.raises(ManifestError, match=r"another model\.onnx"):
        check_file(digits_copy / "model.engine", replace(manifest, files={**manifest.files, "model.onnx": graph}))


@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize("links", [True, False])
def test_an_engine_that_cannot_be_listed_leaves_the_earlier_one(
    digits_copy: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool, links: bool
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    if earlier:
        place_engine(digits_copy, b"earlier")
    names, before = sorted(os.listdir(digits_copy)), read_manifest(digits_copy)
    monkeypatch.setattr(engines, "write_manifest", full)
    if not links:
        monkeypatch.setattr(atomic.os, "link", full)
    with pytest.raises(OutputError, match="No space left"):
        place_engine(digits_copy)
    assert (sorted(os.listdir(digits_copy)), read_manifest(digits_copy)) == (names, before)
    assert not earlier or (digits_copy / "model.engine").read_bytes() == b"earlier"


def test_what_a_killed_build_leaves_does_not_block_exports(digits_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place_engine(digits_copy, b"earlier")
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(engines, "write_manifest", lambda *arguments: os._exit(9))
        try:
            place_engine(digits_copy)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = {name for name in os.listdir(digits_copy) if name.startswith(".")}
    assert len(left) == 2, "the engine, and the manifest as it was"
    with staged(digits_copy):
        assert not left & set(os.listdir(digits_copy))
