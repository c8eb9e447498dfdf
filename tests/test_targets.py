"""What a target takes of a graph is read from one table of facts; what no source says is unknown, never yes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from artifacts import Command
from onnx import TensorProto, helper, numpy_helper, save, shape_inference

from gtp_exporters.graph.files import read
from gtp_exporters.graph.ranks import to_form
from gtp_exporters.options import MAX_TOPK
from gtp_exporters.targets.operators import LIMITED, NO, SOURCES, TARGETS, UNKNOWN, VERDICTS, YES
from gtp_exporters.targets.reading import CONDITIONS, Reading, Row, read_graph

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def toy(
    operator: str, *constants: np.ndarray, shape: tuple[int | str, ...] = (4, 4), kind: int = FLOAT, **given: Any
) -> ir.Model:
    """Return a graph of one node: the input x, then these constants; without any, x twice where ``both`` is given."""
    both, outputs = bool(given.pop("both", False)), ["y", "ids"][: 2 if operator == "TopK" else 1]
    names = [f"c{index}" for index in range(len(constants))]
    node = helper.make_node(operator, ["x", *(["x"] if both else []), *names], outputs, name="it", **given)
    graph = helper.make_graph(
        [node],
        "toy",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in zip(names, constants, strict=True)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ir.from_proto(shape_inference.infer_shapes(made, data_prop=True))


def only(graph: ir.Model, target: str) -> Row:
    (row,) = read_graph(graph, target).rows
    assert row.nodes == ("it",)
    return row


def verdicts(reading: Reading) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in reading.rows:
        found.setdefault(row.operator, set()).add(row.verdict)
    return found


def test_every_statement_has_a_source_and_a_condition() -> None:
    used = {"onnx-tensorrt"}
    for target in TARGETS.values():
        assert not target.complete or target.complete in target.lists
        used |= {*target.lists, *target.floats.values(), *(limit.source for limit in target.limits)}
        for limit in target.limits:
            assert limit.when in CONDITIONS and limit.verdict in VERDICTS and limit.verdict != YES and limit.reason
    assert used == set(SOURCES)
    assert {limit.when for target in TARGETS.values() for limit in target.limits} == set(CONDITIONS)


@pytest.mark.parametrize(("k", "verdict"), [(MAX_TOPK, YES), (MAX_TOPK + 1, NO)])
def test_tensorrts_limit_of_topk(k: int, verdict: str) -> None:
    graph = toy("TopK", np.array([k], np.int64), shape=(1, MAX_TOPK + 1))
    assert only(graph, "tensorrt").verdict == verdict
    assert only(graph, "qnn").verdict == YES


@pytest.mark.parametrize(
    ("target", "verdict"), [("qnn", NO), ("openvino-npu", NO), ("tensorrt", LIMITED), ("webnn", UNKNOWN)]
)
def test_a_dynamic_axis(target: str, verdict: str) -> None:
    assert only(toy("Relu", shape=("n", 4)), target).verdict == verdict


@pytest.mark.parametrize(
    ("target", "verdict"), [("tensorrt", YES), ("qnn", YES), ("coreml", UNKNOWN), ("webgpu", UNKNOWN)]
)
def test_a_type_that_no_source_names_is_unknown(target: str, verdict: str) -> None:
    assert only(toy("Relu", kind=HALF), target).verdict == verdict
    assert only(toy("Relu"), target).verdict == YES


def test_integers_as_data() -> None:
    graph = toy("Equal", kind=TensorProto.INT64, both=True)
    assert (only(graph, "webgpu").verdict, only(graph, "tensorrt").verdict) == (NO, YES)
    assert only(toy("Equal", both=True), "webgpu").verdict == YES


def test_the_factors_of_a_product() -> None:
    constant, summand = np.zeros((4, 4), np.float32), np.zeros(4, np.float32)
    weights, computed = toy("Gemm", constant, summand), toy("Gemm", summand, both=True)
    turned = toy("Gemm", summand, both=True, transB=1)
    assert [only(graph, "coreml").verdict for graph in (weights, computed, turned)] == [YES, NO, NO]
    assert [only(graph, "nnapi").verdict for graph in (weights, computed, turned)] == [YES, NO, YES]
    assert only(weights, "webnn").verdict == YES
    assert only(toy("Gemm", constant, constant), "webnn").verdict == NO


@pytest.mark.parametrize(
    ("kind", "zero", "verdict"), [(np.int8, 0, YES), (np.int8, 3, NO), (np.uint8, 0, NO), (np.uint8, 128, NO)]
)
def test_tensorrt_takes_symmetric_int8(kind: type, zero: int, verdict: str) -> None:
    row = only(toy("QuantizeLinear", np.array(0.1, np.float32), np.array(zero, kind)), "tensorrt")
    assert row.verdict == verdict
    assert ("quantize" in row.instead) == (verdict == NO)


def test_a_product_between_quantised_factors_that_gives_floats() -> None:
    def product(*, again: bool) -> ir.Model:
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "scale"], ["f"]),
            helper.make_node("Gemm", ["f", "w"], ["g" if again else "y"], name="it"),
            *([helper.make_node("QuantizeLinear", ["g", "scale"], ["y"])] if again else []),
        ]
        constants = {"scale": np.array(0.1, np.float32), "w": np.zeros((4, 4), np.float32)}
        graph = helper.make_graph(
            nodes,
            "toy",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, (4, 4))],
            [helper.make_empty_tensor_value_info("y")],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return ir.from_proto(shape_inference.infer_shapes(made))

    assert verdicts(read_graph(product(again=True), "qnn"))["Gemm"] == {YES}
    assert verdicts(read_graph(product(again=False), "qnn"))["Gemm"] == {NO}


def test_operators_beyond_the_lists() -> None:
    """Where a list is whole, what is not on it is not taken; elsewhere nothing is said of it."""
    assert only(toy("Hardmax"), "webnn").verdict == NO
    assert only(toy("Hardmax"), "tensorrt").verdict == UNKNOWN
    own = toy("Hardmax")
    own.graph.node(0).domain = "com.example"
    row = only(own, "tensorrt")
    assert (row.operator, row.verdict) == ("com.example:Hardmax", NO)
    assert only(own, "openvino-npu").verdict == UNKNOWN


@pytest.mark.parametrize(
    ("target", "operator", "verdict", "options"),
    [
        ("webnn", "TopK", NO, ("--form", "ranks")),
        ("coreml", "TopK", NO, ("--form", "ranks-arithmetic")),
        ("nnapi", "LayerNormalization", NO, ("--form", "ranks-arithmetic", "--no-trace")),
        ("rknn", "Gelu", UNKNOWN, ("--form", "ranks-arithmetic")),
    ],
)
def test_an_export_names_the_form_that_avoids_it(
    digits: Path, target: str, operator: str, verdict: str, options: tuple[str, ...]
) -> None:
    reading = read_graph(read(digits / "model.onnx"), target)
    assert verdict in verdicts(reading)[operator]
    assert reading.better is not None and reading.better.options == options
    assert reading.better.counts[NO] < reading.counts[NO]


def test_a_graph_that_is_in_a_form_already(digits: Path) -> None:
    ranks = to_form(read(digits / "model.onnx"), "ranks")
    better = read_graph(ranks, "coreml").better
    assert better is not None and better.options == ("--form", "ranks-arithmetic")
    assert read_graph(ranks, "webgpu").counts[NO] == 0


def test_the_command(command: Command, digits: Path) -> None:
    ran = command("check", digits, "--target", "tensorrt")
    assert (ran.code, ran.last) == (0, f"next: gtp-export build-engine {digits}")
    ran = command("check", digits, "--target", "webnn")
    assert ran.code == 3
    assert "--form ranks" in ran.last
    ran = command("check", digits / "dense.onnx", "--target", "openvino-npu")  # unknown is not refused
    assert ran.code == 0


def test_the_document_of_the_command(command: Command, digits: Path) -> None:
    ran = command("check", digits, "--target", "webnn", "--json")
    found = json.loads(ran.out)
    assert (ran.code, found["ok"], found["target"]) == (3, False, "webnn")
    assert [graph["file"] for graph in found["graphs"]] == ["model.onnx", "dense.onnx"]
    graph = found["graphs"][0]
    assert sum(graph["counts"].values()) == sum(row["count"] for row in graph["operators"])
    assert all(row["source"] in found["sources"] for row in graph["operators"] if row["verdict"] != UNKNOWN)
    topk = next(row for row in graph["operators"] if row["operator"] == "TopK")
    assert (topk["verdict"], topk["count"]) == (NO, len(topk["nodes"]))


def test_a_graph_that_is_no_export(command: Command, tmp_path: Path) -> None:
    save(ir.to_proto(toy("Relu")), tmp_path / "own.onnx")
    assert command("check", tmp_path / "own.onnx", "--target", "coreml").code == 0


def test_a_dynamic_graph_has_no_other_form() -> None:
    reading = read_graph(toy("TopK", np.array([3], np.int64), shape=("n", 8)), "coreml")
    assert (reading.counts[NO], reading.better) == (1, None)


def test_a_constant_that_a_node_gives() -> None:
    graph = toy("TopK", np.array([MAX_TOPK + 1], np.int64), shape=(1, MAX_TOPK + 1))
    value = graph.graph.node(0).inputs[1]
    assert value is not None and value.const_value is not None
    constant = ir.node("Constant", [], {"value": value.const_value}, name="k")
    graph.graph.insert_before(graph.graph.node(0), constant)
    graph.graph.node(1).replace_input_with(1, constant.outputs[0])
    assert verdicts(read_graph(graph, "tensorrt")) == {"Constant": {YES}, "TopK": {NO}}
    assert verdicts(read_graph(graph, "openvino-npu"))["TopK"] == {LIMITED}


def test_wrong_input(command: Command, digits_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.onnx").write_bytes(b"no graph")
    (tmp_path / "model.engine").write_bytes(b"")
    (digits_copy / "dense.onnx").write_bytes(b"other")
    wrong = {
        ("nowhere.onnx", "qnn"): 1,
        (tmp_path, "qnn"): 1,
        (tmp_path / "damaged.onnx", "qnn"): 1,
        (tmp_path / "model.engine", "qnn"): 2,
        (digits_copy, "qnn"): 1,
        (digits_copy / "model.onnx", "hailo"): 2,
    }
    for (path, target), code in wrong.items():
        ran = command("check", path, "--target", target, "-q")
        assert (ran.code, ran.out) == (code, ""), ran.err
        assert "Traceback" not in ran.err
        assert len(ran.err.splitlines()) == 1 or "╭─ Error" in ran.err
