"""ONNX files are walked before anything loads them: none may reach outside, be cut short, or hold an engine."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import gtp_runtime
from gtp_exporters import StaticCheckError
from gtp_exporters.graph import files as graphs
from gtp_runtime import read_manifest
from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest import file_sha256, write_manifest
from gtp_runtime.onnx_scan import ScanError, scan


def outside(name: str, location: str) -> TensorProto:
    """A tensor whose values are in a file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def graph(*tensors: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    nodes = nodes or (helper.make_node("Identity", ["x"], ["y"]),)
    return helper.make_model(helper.make_graph(list(nodes), "g", [], [output], list(tensors)))


def in_subgraph(location: str) -> onnx.ModelProto:
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["z"], value=outside("v", location))],
        "b",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2])],
    )
    return graph(nodes=(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),))


def with_functions() -> onnx.ModelProto:
    """Functions that call the one before ten times: a kilobyte that unfolds to ten million nodes."""
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("d", 1)]
    model = graph(nodes=(helper.make_node("f7", ["x"], ["y"], domain="d"),))
    for number in range(8):
        names = ["x", *(f"t{place}" for place in range(9)), "y"]
        called, domain = (f"f{number - 1}", "d") if number else ("Relu", "")
        calls = [helper.make_node(called, [given], [made], domain=domain) for given, made in pairwise(names)]
        model.functions.append(helper.make_function("d", f"f{number}", ["x"], ["y"], calls, domains))
    return model


def with_sparse_weights() -> onnx.ModelProto:
    model = graph()
    model.graph.sparse_initializer.add().dims.extend([10**6, 10**6])
    return model


def with_a_sparse_constant() -> onnx.ModelProto:
    sparse = onnx.SparseTensorProto(dims=[10**6, 10**6])
    return graph(nodes=(helper.make_node("Constant", [], ["y"], sparse_value=sparse),))


UNFOLDING = {
    "functions": with_functions,
    "sparse weights": with_sparse_weights,
    "a sparse constant": with_a_sparse_constant,
}


PLACES: dict[str, Callable[[str], onnx.ModelProto]] = {
    "initializer": lambda location: graph(outside("x", location)),
    "constant": lambda location: graph(nodes=(helper.make_node("Constant", [], ["y"], value=outside("v", location)),)),
    "subgraph": in_subgraph,
}


def saved(model: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["/etc/passwd", "../model.onnx.data", "other", "./model.onnx.data", "a/b", ""])
def test_weights_elsewhere_are_found_wherever_they_are_named(tmp_path: Path, place: str, location: str) -> None:
    path = saved(PLACES[place](location), tmp_path)
    for allowed in (None, "model.onnx.data"):
        with pytest.raises(ScanError, match="keeps weights .*manifest"):
            scan(path, allowed)
        with pytest.raises(StaticCheckError, match="keeps weights in"):
            graphs.read(path, allowed)


@pytest.mark.parametrize("place", PLACES)
def test_the_file_that_the_manifest_names_is_allowed(tmp_path: Path, place: str) -> None:
    scan(saved(PLACES[place]("model.onnx.data"), tmp_path), "model.onnx.data")


def test_engines_in_graphs(tmp_path: Path) -> None:
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context=b"engine")
    with pytest.raises(ScanError, match="holds a compiled engine"):
        scan(saved(graph(nodes=(node,)), tmp_path), None)


@pytest.mark.parametrize("name", UNFOLDING)
def test_what_unfolds_to_any_size(tmp_path: Path, name: str) -> None:
    with pytest.raises(ScanError, match="holds (functions|sparse tensors)"):
        scan(saved(UNFOLDING[name](), tmp_path), None)


def test_graphs_in_graphs_end_somewhere(tmp_path: Path) -> None:
    model = graph()
    for _ in range(15):
        node = helper.make_node("If", ["c"], ["y"], then_branch=model.graph, else_branch=graph().graph)
        model = graph(nodes=(node,))
    with pytest.raises(ScanError, match="32 levels"):
        scan(saved(model, tmp_path), None)


def test_exports_pass(digits: Path) -> None:
    for name in ("model.onnx", "dense.onnx"):
        scan(digits / name, None)


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"\xff" * 20, b"text, no graph", b"\x0b\x0c", b"\x08\x80", b"\x3a\xff\xff\xff\xff\x7f"]
)
def test_what_is_no_graph(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ScanError):
        scan(tmp_path / "model.onnx", None)


def test_too_many_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gtp_runtime.onnx_scan.MOST", 100)
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08" * 1000)
    with pytest.raises(ScanError, match="more than 100 fields"):
        scan(tmp_path / "model.onnx", None)


def replaced(directory: Path, content: bytes) -> None:
    """Put another graph there, with a manifest that fits it."""
    path = directory / "model.onnx"
    path.write_bytes(content)
    manifest = read_manifest(directory)
    entry = replace(manifest.entry(path.name), sha256=file_sha256(path), size=len(content))
    write_manifest(replace(manifest, files=manifest.files | {path.name: entry}), directory)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_load_refuses_in_one_line(digits_copy: Path, backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    whole = (digits_copy / "model.onnx").read_bytes()
    for content, words in (
        (whole[: len(whole) // 2], "cut short"),
        (PLACES["initializer"]("/etc/passwd").SerializeToString(), "keeps weights in '/etc/passwd'"),
        (graph().SerializeToString(), "cannot load|has no tensor"),
        ((digits_copy / "dense.onnx").read_bytes(), "its manifest says"),
    ):
        replaced(digits_copy, content)
        with pytest.raises(ManifestError, match=words) as refused:
            gtp_runtime.load(digits_copy, backend)
        assert "\n" not in str(refused.value)


def test_onnx_runtime_prints_nothing(digits_copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    named = (digits_copy / "model.onnx").read_bytes().replace(b"LayerNormalization", b"LayerNormalizati\xff\xff")
    replaced(digits_copy, named)
    with pytest.raises(ManifestError, match="ONNX Runtime"):
        gtp_runtime.load(digits_copy, threads=1)
    assert capfd.readouterr().out == ""
