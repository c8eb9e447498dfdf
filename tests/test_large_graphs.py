"""Graphs whose weights are in a file beside them, as those above 2 GiB: the whole way, with the limits lowered."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_graphs import tiny_graph

import gtp_runtime
from gtp_exporters import EngineOptions, ExportOptions, agreement, build_engine, export
from gtp_exporters.agreement import answers
from gtp_exporters.errors import StaticCheckError
from gtp_exporters.graph import files as graphs
from gtp_exporters.graph import rules
from gtp_models import Recipe
from gtp_runtime.errors import ManifestError, RandomWeightsWarning
from gtp_runtime.manifest import check_file, file_sha256, read_manifest

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5}
TINY = Recipe("tiny", "a tiny ViT", "vit_tiny_patch16_224", gtp={"num_prop": 3, "num_neighbours": 4}, model_args=ARGS)
GRAPHS = ("model.onnx", "dense.onnx")
pytestmark = pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")


def lower_limits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(graphs, "EXTERNAL_ABOVE", 10_000)
    for module in (graphs, rules, agreement):
        patch.setattr(module, "LARGE", 4096)


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    lower_limits(monkeypatch)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        lower_limits(patch)
        return export(TINY, tmp_path_factory.mktemp("large") / "tiny", weights="random", check=False).directory


@pytest.fixture
def copied(directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(directory, tmp_path / "tiny"))


def test_each_graph_has_one_file_of_weights(directory: Path) -> None:
    manifest = read_manifest(directory)
    assert {path.name for path in directory.iterdir()} == {*manifest.files, "model.json"}
    for name in GRAPHS:
        data = f"{name}.data"
        entry = manifest.entry(data)
        assert (entry.role, entry.sha256) == ("data", file_sha256(directory / data))
        assert entry.size == (directory / data).stat().st_size > graphs.EXTERNAL_ABOVE
        assert manifest.entry(name).external_data == data
        tensors = onnx.load(directory / name, load_external_data=False).graph.initializer
        places = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
        assert places == {data}
        onnx.checker.check_model(str(directory / name), full_check=True)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", GRAPHS)
def test_it_loads_and_answers_the_same(directory: Path, name: str, backend: str) -> None:
    pytest.importorskip(backend)
    with pytest.warns(RandomWeightsWarning), gtp_runtime.load(directory / name, backend) as model:
        assert model.validate().ok


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_builds_it(copied: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    options = EngineOptions(targets=("sm86",))
    engine = build_engine(copied, precision=precision, flavor="rtx", options=options)
    assert engine.entry.external_data is None
    assert engine.entry.engine is not None
    monkeypatch.setattr(graphs, "EXTERNAL_ABOVE", 1 << 30)  # as a graph that holds its weights
    whole = build_engine(copied, copied / "whole.engine", precision=precision, flavor="rtx", options=options)
    assert whole.entry.engine is not None
    assert engine.entry.engine.layers == whole.entry.engine.layers
    assert abs(engine.entry.size - whole.entry.size) < 0.01 * whole.entry.size


def test_a_precision_is_written_in_as_well(tmp_path: Path) -> None:
    export(TINY, tmp_path / "tiny", weights="random", options=ExportOptions(precision="fp16", dense=False), check=False)
    manifest = read_manifest(tmp_path / "tiny")
    assert set(manifest.files) == {"model.onnx", "model.onnx.data", "reference.npz", "report.html"}
    assert manifest.entry("model.onnx").precision == "fp16"
    with pytest.warns(RandomWeightsWarning), gtp_runtime.load(tmp_path / "tiny") as model:
        assert model.validate().ok


def test_weights_are_checked_on_load(copied: Path) -> None:
    data = copied / "model.onnx.data"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    manifest = read_manifest(copied)
    check_file(copied / "dense.onnx", manifest)
    with pytest.raises(ManifestError, match=r"model\.onnx\.data is not"):
        check_file(copied / "model.onnx", manifest)
    data.unlink()
    for use in (lambda: gtp_runtime.load(copied), lambda: build_engine(copied, flavor="rtx")):
        with pytest.raises(ManifestError, match=r"no file .*model\.onnx\.data"):
            use()


def test_weights_elsewhere_are_refused(copied: Path) -> None:
    graphs.read(copied / "model.onnx", "model.onnx.data")
    for named in (None, "other.data"):
        with pytest.raises(StaticCheckError, match=r"'model\.onnx\.data', .*manifest"):
            graphs.read(copied / "model.onnx", named)
    (copied / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(StaticCheckError, match="no ONNX graph"):
        graphs.read(copied / "model.onnx")


def test_a_skeleton_has_no_large_weights_and_comes_back_whole() -> None:
    graph = tiny_graph()
    proto, weights = graphs.skeleton(graph)
    assert weights
    assert all(len(tensor.raw_data) < graphs.LARGE for tensor in proto.graph.initializer)
    assert {value.name for value in proto.graph.input} == {"images", *weights}
    whole = graphs.restore(proto, weights)
    assert [value.name for value in whole.graph.inputs] == ["images"]
    assert set(whole.graph.initializers) == set(graph.graph.initializers)
    for left, right in zip(answers(whole), answers(graph), strict=True):
        assert all(np.array_equal(left[name], right[name]) for name in right)


def test_reading_and_writing_whole_again(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graphs.read(copied / "model.onnx", "model.onnx.data")
    monkeypatch.setattr(graphs, "EXTERNAL_ABOVE", 1 << 30)
    assert graphs.save(graph, tmp_path / "whole.onnx") is None
    whole = ir.load(tmp_path / "whole.onnx")
    for left, right in zip(answers(whole), answers(graph), strict=True):
        assert all(np.array_equal(left[name], right[name]) for name in right)
