"""The whole export: files, manifest, leanness, and nothing half-written."""

import inspect
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from gtp_export.commands.export import export as command_export
from gtp_exporters import ExportOptions, export
from gtp_exporters.errors import LimitError
from gtp_exporters.graph import describe
from gtp_exporters.reference import synthetic_images
from gtp_models import GTPConfig, Recipe
from gtp_runtime import Manifest, read_manifest
from gtp_runtime.reference import read_reference

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
TINY = Recipe("tiny", "a tiny ViT", "vit_tiny_patch16_224", gtp={"num_prop": 2, "num_neighbours": 4}, model_args=ARGS)
LEAN = 54  # nodes of a reducing block at batch 1


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(TINY, tmp_path_factory.mktemp("out") / "tiny", weights="random", check=False).directory


def test_the_directory_holds_what_the_manifest_lists(exported: Path) -> None:
    manifest = read_manifest(exported)
    assert {path.name for path in exported.iterdir()} == {*manifest.files, "model.json"}
    assert set(manifest.files) == {"model.onnx", "dense.onnx", "reference.npz", "report.html"}
    assert (manifest.weights.source, manifest.weights.detail) == ("random", "seed 0")
    assert manifest.reference == {"images": "synthetic", "count": 8}
    assert [layer.tokens_in for layer in manifest.layers] == [17, 15, 13]
    assert manifest.num_prop == [2, 2, 2]


def test_shapes_and_names(exported: Path) -> None:
    entry = read_manifest(exported).entry("model.onnx")
    assert [(spec.name, spec.shape, spec.dtype) for spec in entry.inputs] == [("images", [1, 3, 32, 32], "float32")]
    assert [(spec.name, spec.shape, spec.dtype) for spec in entry.outputs] == [
        ("logits", [1, 5], "float32"),
        ("propagated", [1, 6], "int32"),
    ]


@pytest.mark.parametrize("name", ["model.onnx", "dense.onnx"])
def test_a_graph_says_what_it_is_and_nothing_of_the_machine(exported: Path, name: str) -> None:
    proto = onnx.load(exported / name)
    onnx.checker.check_model(proto, full_check=True)
    essentials = {entry.key: entry.value for entry in proto.metadata_props}
    assert essentials["weights"] == "random (seed 0)"
    assert essentials["model"] == "vit_tiny_patch16_224"
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert str(Path.cwd()).encode() not in (exported / name).read_bytes()
    if name == "model.onnx":
        assert GTPConfig(**json.loads(essentials["settings"])) == TINY.settings()
    assert (essentials["method"], proto.graph.name) == (
        ("gtp", "tiny-gtp") if name == "model.onnx" else ("dense", "tiny-dense")
    )


def test_reducing_blocks_are_lean(exported: Path) -> None:
    manifest = read_manifest(exported)
    assert all(20 < layer.nodes <= LEAN for layer in manifest.layers)
    reducing = sum(layer.nodes for layer in manifest.layers)
    assert reducing < manifest.entry("model.onnx").nodes < reducing + 60


def test_layers_without_reduction_have_no_selection(tmp_path: Path) -> None:
    config = GTPConfig(num_prop=(0, 3, 0), num_neighbours=4)
    exported = export(TINY, tmp_path / "out", weights="random", settings=config, check=False)
    nodes = [layer.nodes for layer in exported.manifest.layers]
    assert nodes[0] <= 26
    assert nodes[2] <= 28
    assert nodes[1] > 35


def test_the_reference_holds_every_layer(exported: Path) -> None:
    reference = read_reference(exported / "reference.npz")
    assert reference.images.shape == (8, 32, 32, 3)
    assert reference.images.dtype == np.uint8
    assert reference.dense_answers is not None
    assert reference.labels is None
    assert [kept.shape[1] for kept in reference.kept] == [14, 12, 10]
    assert [left.shape[1] for left in reference.propagated] == [2, 2, 2]
    everything = np.sort(np.concatenate([reference.kept[2], *reference.propagated], 1), 1)
    np.testing.assert_array_equal(everything, np.tile(np.arange(16), (8, 1)))


def test_options(tmp_path: Path) -> None:
    options = ExportOptions(batch=2, dense=False, trace=False, simplify=False)
    manifest = export(TINY, tmp_path / "out", weights="random", options=options, check=False).manifest
    assert set(manifest.files) == {"model.onnx", "reference.npz", "report.html"}
    assert manifest.target == "onnxruntime"
    assert [spec.shape for spec in manifest.entry("model.onnx").outputs] == [[2, 5]]
    assert read_reference(tmp_path / "out" / "reference.npz").dense_answers is None


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(describe, "save", lambda model, path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(TINY, tmp_path / "deep" / "out", weights="random")
    assert not list(tmp_path.iterdir())


def test_wrong_options_are_refused() -> None:
    with pytest.raises(LimitError, match="batch=0"):
        ExportOptions(batch=0)
    with pytest.raises(LimitError, match="tensorrt, onnxruntime, openvino"):
        ExportOptions(target="ncnn")


def test_the_default_target_is_the_command_lines() -> None:
    default = inspect.signature(command_export).parameters["target"].default
    assert ExportOptions().target == default == "onnxruntime"
    assert ExportOptions(precision="int4_weights").converted == "int4_weights", "ONNX Runtime alone runs it"
    with pytest.raises(LimitError, match="onnxruntime"):
        ExportOptions(precision="int4_weights", target="tensorrt")


def test_synthetic_images_are_seeded_and_smooth() -> None:
    images = synthetic_images([32, 48]).pixels
    np.testing.assert_array_equal(images, synthetic_images([32, 48]).pixels)
    assert images.shape == (8, 32, 48, 3)
    steps = np.abs(np.diff(images.astype(int), axis=2))
    assert steps.mean() < 20


def test_manifest_names_the_tools(exported: Path) -> None:
    manifest: Manifest = read_manifest(exported)
    assert manifest.tools["torch"].startswith("2.")
