"""The manifest: one schema reads and writes it; newer minors are read, other majors refused."""

import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from artifacts import ROOT, Command

from gtp_runtime import Manifest, Preprocessing, benchmark, load, read_manifest
from gtp_runtime.errors import InputError, ManifestError
from gtp_runtime.manifest import (
    SCHEMA_VERSION,
    EngineInfo,
    FileEntry,
    LayerEntry,
    ModelInfo,
    TensorSpec,
    WeightsInfo,
    check_file,
    file_sha256,
    json_schema,
    twin,
    write_manifest,
)
from gtp_runtime.messages import is_text

GRAPH = b"\x08\x08\x3a\x00"  # an ONNX file: ir_version 8, an empty graph
MANIFEST = Manifest(
    model=ModelInfo("tiny", "a tiny ViT", "vit_tiny_patch16_224", 2, 1, [4, 4]),
    weights=WeightsInfo("file", "tiny.safetensors", "ab" * 32, ["resampled"]),
    method="gtp",
    settings={"num_prop": [2, 0], "sparsity": 1.0},
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
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), encoding="utf-8")


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
    rewrite(tmp_path, schema_version="2.7", model=model, engines={"a": 1})
    assert read_manifest(tmp_path) == replace(MANIFEST, schema_version="2.7")


def newer(directory: Path, name: str, **changes: Any) -> None:
    """Let the manifest be of a newer minor version, with a copy of the model's graph of which this one knows less."""
    path = directory / "model.json"
    values = json.loads(path.read_text("utf-8"))
    values["schema_version"] = "2.99"
    values["files"][name] = {**values["files"]["model.onnx"], **changes}
    (directory / name).write_bytes((directory / "model.onnx").read_bytes())
    path.write_text(json.dumps(values), encoding="utf-8")


NEWER = {
    "precision": {"precision": "fp8"},
    "role": {"role": "adapter"},
    "dtype": {"inputs": [{"name": "images", "shape": [1, 3, 28, 28], "dtype": "float8"}]},
    "engine": {"engine": {"flavor": "nano", "version": "1.0", "onnx": "model.onnx", "onnx_sha256": "", "layers": 1,
                          "build_seconds": 1.0}},
}  # fmt: skip


@pytest.mark.parametrize("what", NEWER)
def test_what_a_newer_minor_added_hides_no_other_file(digits_copy: Path, what: str) -> None:
    newer(digits_copy, "other.onnx", **NEWER[what])
    manifest = read_manifest(digits_copy)
    assert what in manifest.files["other.onnx"].unknown
    assert not manifest.files["model.onnx"].unknown
    with load(digits_copy / "model.onnx", threads=1) as model:
        assert model.run(model.sample()).shape == (1, 10)
    with pytest.raises(ManifestError, match=what) as caught:
        load(digits_copy / "other.onnx")
    assert "other.onnx" in str(caught.value)
    if what != "engine":  # its graph is another
        check_file(digits_copy / "other.onnx", manifest)


def test_a_target_method_and_source_of_a_newer_minor_are_read(tmp_path: Path) -> None:
    weights = {**vars(MANIFEST.weights), "source": "distilled"}
    rewrite(tmp_path, schema_version="2.9", target="coreml", method="newest", weights=weights)
    manifest = read_manifest(tmp_path)
    assert (manifest.target, manifest.method, manifest.weights.source) == ("coreml", "newest", "distilled")


def test_inspect_lists_what_a_newer_minor_added(command: Command, digits_copy: Path) -> None:
    newer(digits_copy, "model.fp8.onnx", precision="fp8")
    ran = command("inspect", digits_copy)
    assert ran.code == 0
    assert "fp8 (unknown here)" in ran.out


@pytest.mark.parametrize("result", [{}, {"p50_ms": 1.0}, {"p50_ms": "fast"}, None, 3], ids=str)
@pytest.mark.parametrize("kind", ["latency", "parity", "accuracy", "quantization_failed"])
def test_results_in_another_form_are_left_out(command: Command, digits_copy: Path, kind: str, result: Any) -> None:
    path = digits_copy / "model.json"
    values = json.loads(path.read_text("utf-8"))
    values["results"] = {**values["results"], kind: {"model.onnx": result, "dense.onnx": {"p50_ms": 1.0}}}
    path.write_text(json.dumps(values), encoding="utf-8")
    manifest = read_manifest(digits_copy)
    assert manifest.results[kind]["model.onnx"] == result
    assert manifest.measured(kind) == {}
    for name in ("inspect", "report"):
        assert command(name, digits_copy).code == 0


def test_measured_results_are_those_that_this_version_writes(digits: Path) -> None:
    with load(digits, threads=1) as model:
        latency = benchmark([model], 0.01)[0].to_dict()
        parity = model.validate().to_dict()
    results = {"latency": {"model.onnx": latency}, "parity": {"model.onnx": parity}}
    manifest = replace(MANIFEST, results=results)
    assert {kind: manifest.measured(kind) for kind in results} == results


def test_keys_that_have_defaults_may_be_missing(tmp_path: Path) -> None:
    rewrite(tmp_path)
    values = json.loads((tmp_path / "model.json").read_text("utf-8"))
    del values["results"], values["labels"], values["files"]["reference.npz"]["macs"]
    (tmp_path / "model.json").write_text(json.dumps(values), encoding="utf-8")
    assert read_manifest(tmp_path) == replace(MANIFEST, results={}, labels=None)


def test_a_newer_major_is_refused(tmp_path: Path) -> None:
    rewrite(tmp_path, schema_version="3.0")
    with pytest.raises(ManifestError, match=rf"3\.0, .*{re.escape(SCHEMA_VERSION)}: update"):
        read_manifest(tmp_path)


def test_an_older_major_is_refused(tmp_path: Path) -> None:
    rewrite(tmp_path, schema_version="1.1")
    with pytest.raises(ManifestError, match=r"1\.1, .*2\.x: export again"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["{}", "[]", "3", '{"schema_version": null}', '{"schema_version": "x.1"}'])
def test_without_a_version_it_is_no_manifest(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.json").write_text(content, encoding="utf-8")
    with pytest.raises(ManifestError, match="no schema_version"):
        read_manifest(tmp_path)


def at(values: Any, *keys: Any) -> Any:
    for key in keys:
        values = values[key]
    return values


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("files", "model.onnx", "size"), "x", "files.model.onnx.size is 'x', not a whole number"),
        (("files", "reference.npz", "size"), 1.5, "files.reference.npz.size is 1.5, not a whole number"),
        (("files", "model.onnx", "inputs", 0, "shape", 3), None, "files.model.onnx.inputs.0.shape.3 is None, not a"),
        (("files", "model.onnx"), 3, "files.model.onnx is 3, not an object"),
        (("layers", 1, "nodes"), True, "layers.1.nodes is True, not a whole number"),
        (("preprocessing", "mean", 2), "0.5", "preprocessing.mean.2 is '0.5', not a number"),
        (("labels", 1), 7, "labels.1 is 7, not text"),
        (("labels",), "abc", "labels is 'abc', not a list or null"),
        (("layers",), {"a": 1}, "layers is an object, not a list"),
        (("files",), [], "files is a list, not an object"),
        (("macs", "dense"), 2.5, "macs holds an entry that is not a whole number"),
        (("layers", 0, "macs"), -1, "layers.0.macs is -1, not a whole number >= 0"),
        (("model", "grid"), [4], "model.grid is a list, not a list of length >= 2"),
        (("results", "parity", "model.onnx"), 1, "results.parity is an object"),
        (("model",), "deit", "model is 'deit', not an object"),
    ],
    ids=lambda given: ".".join(map(str, given)) if isinstance(given, tuple) else None,
)
def test_a_bad_leaf_is_named(tmp_path: Path, keys: tuple[Any, ...], value: Any, message: str) -> None:
    write_manifest(MANIFEST, tmp_path)
    values = json.loads((tmp_path / "model.json").read_text("utf-8"))
    at(values, *keys[:-1])[keys[-1]] = value
    (tmp_path / "model.json").write_text(json.dumps(values), encoding="utf-8")
    if keys[0] == "results":  # what was measured may hold anything
        assert read_manifest(tmp_path).results["parity"]["model.onnx"] == 1
        return
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path)
    assert f"model.json: {message}" in str(caught.value)
    assert str(caught.value).endswith("; export again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("model", "timm"), "model.timm is missing"),
        (("files", "model.onnx", "sha256"), "files.model.onnx.sha256 is missing"),
        (("preprocessing",), "model.json: preprocessing is missing"),
    ],
    ids=lambda given: ".".join(given) if isinstance(given, tuple) else None,
)
def test_a_missing_leaf_is_named(tmp_path: Path, keys: tuple[str, ...], message: str) -> None:
    write_manifest(MANIFEST, tmp_path)
    values = json.loads((tmp_path / "model.json").read_text("utf-8"))
    del at(values, *keys[:-1])[keys[-1]]
    (tmp_path / "model.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["../model.onnx", "/model.onnx", "a/model.onnx", "..", "", "a\\b"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    entry = MANIFEST.files["model.onnx"]
    for files in ({name: entry}, {"model.onnx": replace(entry, external_data=name)}):
        write_manifest(replace(MANIFEST, files=files), tmp_path)
        with pytest.raises(ManifestError, match=r"files\."):
            read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["version", "gpu", "driver", "cuda", "jetpack", "onnx_sha256"])
@pytest.mark.parametrize("value", ["10.3\x1b[2J", "10.3\n2026-11-24 ERROR", "10.3" + "x" * 10_000])
def test_texts_of_an_engine_can_be_shown_in_a_log(tmp_path: Path, name: str, value: str) -> None:
    info = replace(EngineInfo("tensorrt", "10.3.0", "model.onnx", "", 3, 0.5), **{name: value})
    entry = replace(MANIFEST.files["model.onnx"], engine=info)
    write_manifest(replace(MANIFEST, files={"model.engine": entry}), tmp_path)
    with pytest.raises(ManifestError, match=rf"engine\.{name} is") as caught:
        read_manifest(tmp_path)
    assert is_text(str(caught.value))


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    write_manifest(replace(MANIFEST, results={"parity": {"model.onnx": {"cosine": math.nan}}}), tmp_path)
    assert read_manifest(tmp_path).results["parity"]["model.onnx"] == {"cosine": None}
    (tmp_path / "model.json").write_text('{"schema_version": "2.0", "opset": NaN}', encoding="utf-8")
    with pytest.raises(ManifestError, match="is not JSON"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b'{"schema_version": "2.0"', b"\xff\xfe\x00", b'{"schema_version": "2.\xff"}', b"[" * 100_000],
    ids=["empty", "half", "bytes", "latin", "deep"],
)
def test_no_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(ManifestError, match="is not JSON"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("levels", [40, 900])
def test_values_nested_too_deep_are_refused(tmp_path: Path, levels: int) -> None:
    deep: list[Any] = []
    for _ in range(levels):
        deep = [deep]
    rewrite(tmp_path, settings={"a": deep})
    with pytest.raises(ManifestError):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ["one"]},
        {"reference": {"images": 3}},
        {"files": {"a.onnx": {"role": "model", "sha256": "", "size": 1, "inputs": [
            {"name": "images", "shape": [4096, 4096, 4096], "dtype": "float64"}]}}},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_values_that_contradict_each_other_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    rewrite(tmp_path, **changes)
    with pytest.raises(ManifestError, match=next(iter(changes))):
        read_manifest(tmp_path)


def test_the_directory_is_any_path(digits: Path) -> None:
    assert read_manifest(str(digits)) == read_manifest(digits)
    with pytest.raises(InputError):
        read_manifest(5)  # type: ignore[arg-type]


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="gtp-export export"):
        read_manifest(tmp_path)


def test_only_the_files_it_lists_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(GRAPH)
    manifest = replace(MANIFEST, files={"model.onnx": FileEntry("model", file_sha256(path), len(GRAPH))})
    check_file(path, manifest)
    path.write_bytes(GRAPH[:-1] + b"\1")
    with pytest.raises(ManifestError, match="sha256 differs"):
        check_file(path, manifest)
    path.write_bytes(GRAPH * 2)
    with pytest.raises(ManifestError, match="8 bytes, not 4"):
        check_file(path, manifest)
    path.unlink()
    with pytest.raises(ManifestError):
        check_file(path, manifest)
    path.mkdir()
    with pytest.raises(ManifestError):
        check_file(path, manifest)
    with pytest.raises(ManifestError, match=r"other\.onnx: .*model\.onnx;"):
        check_file(tmp_path / "other.onnx", manifest)


@pytest.fixture
def with_data(tmp_path: Path) -> tuple[Path, Manifest]:
    """A graph whose weights lie in a file beside it."""
    for name, content in (("model.onnx", GRAPH), ("model.onnx.data", b"weights")):
        (tmp_path / name).write_bytes(content)
    graph = FileEntry("model", file_sha256(tmp_path / "model.onnx"), 4, external_data="model.onnx.data")
    data = FileEntry("data", file_sha256(tmp_path / "model.onnx.data"), 7)
    return tmp_path / "model.onnx", replace(MANIFEST, files={"model.onnx": graph, "model.onnx.data": data})


def test_weights_beside_a_graph_are_checked_with_it(with_data: tuple[Path, Manifest]) -> None:
    path, manifest = with_data
    data = path.with_name("model.onnx.data")
    check_file(path, manifest)
    data.write_bytes(b"other")
    with pytest.raises(ManifestError, match=r"model\.onnx\.data is not"):
        check_file(path, manifest)
    data.unlink()
    with pytest.raises(ManifestError, match=r"no file .*model\.onnx\.data"):
        check_file(path, manifest)
    data.mkdir()
    with pytest.raises(ManifestError):
        check_file(path, manifest)


def test_weights_behind_a_link_are_refused(with_data: tuple[Path, Manifest], tmp_path: Path) -> None:
    path, manifest = with_data
    data = path.with_name("model.onnx.data")
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ManifestError):
        check_file(path, manifest)


@pytest.mark.parametrize("name", ["../model.onnx.data", "/etc/passwd", "model.onnx"])
def test_weights_elsewhere_are_refused(with_data: tuple[Path, Manifest], name: str) -> None:
    path, manifest = with_data
    graph = replace(manifest.files["model.onnx"], external_data=name)
    data = replace(manifest.files["model.onnx.data"])
    files = {"../model.onnx.data": data, "/etc/passwd": data, "model.onnx": graph}
    with pytest.raises(ManifestError):
        check_file(path, replace(manifest, files=files))


def test_weights_that_are_not_listed_are_refused(with_data: tuple[Path, Manifest]) -> None:
    path, manifest = with_data
    with pytest.raises(ManifestError, match=r"not list model\.onnx\.data"):
        check_file(path, replace(manifest, files={"model.onnx": manifest.files["model.onnx"]}))


def listed(directory: Path, **roles: tuple[str, int]) -> None:
    """Write files (called NAME_SUFFIX) with a role and a batch, and their manifest."""
    files = {}
    for key, (role, batch) in roles.items():
        name = key.replace("_", ".")
        (directory / name).write_bytes(b"")
        files[name] = FileEntry(role, "", 0, inputs=[TensorSpec("images", [batch, 3, 16, 16], "float32")])
    write_manifest(replace(MANIFEST, files=files), directory)


def test_the_twin_has_the_same_form_where_there_is_one(tmp_path: Path) -> None:
    both = {"dense_onnx": ("dense", 1), "dense_engine": ("dense", 1)}
    listed(tmp_path, model_onnx=("model", 1), model_engine=("model", 1), **both)
    assert twin(tmp_path) == twin(tmp_path / "model.onnx") == tmp_path / "dense.onnx"
    assert twin(tmp_path / "model.engine") == tmp_path / "dense.engine"
    assert twin(tmp_path / "dense.onnx") is None
    (tmp_path / "dense.engine").unlink()  # listed, but not copied to the device
    assert twin(tmp_path / "model.engine") == tmp_path / "dense.onnx"
    (tmp_path / "dense.onnx").unlink()
    assert twin(tmp_path / "model.engine") is None


def test_the_twin_has_the_same_batch(tmp_path: Path) -> None:
    dense = {"dense_engine": ("dense", 8), "dense_onnx": ("dense", 1), "dense8_onnx": ("dense", 8)}
    listed(tmp_path, model_engine=("model", 1), model8_onnx=("model", 8), model4_onnx=("model", 4), **dense)
    assert twin(tmp_path / "model.engine") == tmp_path / "dense.onnx"
    assert twin(tmp_path / "model8.onnx") == tmp_path / "dense8.onnx"
    assert twin(tmp_path / "model4.onnx") is None


def test_the_json_schema_in_docs_is_current() -> None:
    text = (ROOT / "docs" / "model.schema.json").read_text("utf-8")
    assert text == json_schema(), "gtp_runtime.manifest.json_schema() says another"
    jsonschema.Draft202012Validator.check_schema(json.loads(text))


def test_manifests_conform_to_the_json_schema(tmp_path: Path, digits: Path) -> None:
    schema = jsonschema.Draft202012Validator(json.loads(json_schema()))
    write_manifest(MANIFEST, tmp_path)
    for directory in (tmp_path, digits):
        schema.validate(json.loads((directory / "model.json").read_text("utf-8")))
    values = json.loads((digits / "model.json").read_text("utf-8"))
    for wrong in ({"schema_version": "3.0"}, {"opset": "20"}, {"model": {}}, {"files": {"a": {"role": 1}}}):
        with pytest.raises(jsonschema.ValidationError):
            schema.validate(values | wrong)


def test_a_failed_write_leaves_the_old_manifest_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no space")

    write_manifest(MANIFEST, tmp_path)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_manifest(replace(MANIFEST, opset=20), tmp_path)
    assert read_manifest(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]


def test_what_is_no_character_is_spelled_out(tmp_path: Path) -> None:
    write_manifest(replace(MANIFEST, notes=["from \udce9"], results={"x": {"\udce9": ["\udce9"]}}), tmp_path)
    written = read_manifest(tmp_path)
    assert (written.notes, written.results) == (["from \\udce9"], {"x": {"\\udce9": ["\\udce9"]}})
