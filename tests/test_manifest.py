"""The manifest: one schema reads and writes it; newer minors are read, newer majors refused."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gtp_runtime import Manifest, Preprocessing, read_manifest
from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest import (
    FileEntry,
    LayerEntry,
    ModelInfo,
    TensorSpec,
    WeightsInfo,
    check_file,
    file_sha256,
    write_manifest,
)

MANIFEST = Manifest(
    model=ModelInfo("tiny", "a tiny ViT", "vit_tiny_patch16_224", 2, 1, [4, 4]),
    weights=WeightsInfo("file", "tiny.safetensors", "ab" * 32, ["resampled"]),
    gtp={"num_prop": [2, 0], "sparsity": 1.0},
    layers=[LayerEntry(17, 15, 2, 1000, 10, 40), LayerEntry(15, 15, 0, 900, 0, 20)],
    macs={"backbone": 1900, "dense": 2100},
    preprocessing=Preprocessing([16, 16], "shortest", [16, 16], "bicubic", [0.5] * 3, [0.5] * 3, [0, 0, 0]),
    files={
        "model.onnx": FileEntry("model", "", 5, inputs=[TensorSpec("images", [1, 3, 16, 16], "float32")]),
        "reference.npz": FileEntry("reference", "", 7),
    },
    labels=["Ærø", "日本"],
    results={"parity": {"model.onnx": {"ok": True}}},
)


def rewrite(directory: Path, **changes: Any) -> None:
    write_manifest(MANIFEST, directory)
    path = directory / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes))


def test_round_trip(tmp_path: Path) -> None:
    write_manifest(MANIFEST, tmp_path)
    assert read_manifest(tmp_path) == MANIFEST
    assert MANIFEST.num_prop == [2, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]
    assert (tmp_path / "model.json").stat().st_mode & 0o777 == 0o644


def test_labels_stay_readable_text(tmp_path: Path) -> None:
    write_manifest(MANIFEST, tmp_path)
    assert "日本" in (tmp_path / "model.json").read_text("utf-8")


def test_a_newer_minor_with_unknown_keys_is_read(tmp_path: Path) -> None:
    model = {**vars(MANIFEST.model), "colour": "blue"}
    rewrite(tmp_path, schema_version="1.7", model=model, engines={"a": 1})
    assert read_manifest(tmp_path) == replace(MANIFEST, schema_version="1.7")


def test_keys_that_have_defaults_may_be_missing(tmp_path: Path) -> None:
    rewrite(tmp_path)
    values = json.loads((tmp_path / "model.json").read_text())
    del values["results"], values["labels"], values["files"]["reference.npz"]["macs"]
    (tmp_path / "model.json").write_text(json.dumps(values))
    assert read_manifest(tmp_path) == replace(MANIFEST, results={}, labels=None)


def test_a_newer_major_is_refused(tmp_path: Path) -> None:
    rewrite(tmp_path, schema_version="2.0")
    with pytest.raises(ManifestError, match=r"schema version 2\.0, newer than 1\.1: update gtp-export"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["{}", "[]", "3", '{"schema_version": null}', '{"schema_version": "x.1"}'])
def test_without_a_version_it_is_no_manifest(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(ManifestError, match="no schema_version"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("changes", [{"model": "deit"}, {"layers": 3}, {"files": []}, {"model": {"name": "x"}}])
def test_a_version_alone_is_no_manifest(tmp_path: Path, changes: dict[str, Any]) -> None:
    rewrite(tmp_path, **changes)
    with pytest.raises(ManifestError, match="is not a manifest of gtp-export"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"schema_version": "1.0"', b"\xff\xfe\x00"], ids=["empty", "half", "bytes"])
def test_no_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(ManifestError, match="is not JSON"):
        read_manifest(tmp_path)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no manifest .*that gtp-export export wrote beside it"):
        read_manifest(tmp_path)


def test_only_the_files_it_lists_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"graph")
    manifest = replace(MANIFEST, files={"model.onnx": FileEntry("model", file_sha256(path), 5)})
    check_file(path, manifest)
    path.write_bytes(b"grapH")
    with pytest.raises(ManifestError, match="sha256 differs"):
        check_file(path, manifest)
    path.unlink()
    with pytest.raises(ManifestError, match="no file .* though the manifest lists it"):
        check_file(path, manifest)
    with pytest.raises(ManifestError, match=r"does not list other\.onnx: it lists model\.onnx; export again"):
        check_file(tmp_path / "other.onnx", manifest)


def test_a_failed_write_leaves_the_old_manifest_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no space")

    write_manifest(MANIFEST, tmp_path)
    with pytest.raises(UnicodeEncodeError):
        write_manifest(replace(MANIFEST, labels=["\ud800"]), tmp_path)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_manifest(replace(MANIFEST, opset=20), tmp_path)
    assert read_manifest(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]
