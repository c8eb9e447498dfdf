from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from gtp_exporters.graph.rules import rewrite


def graph(perm: list[int], shape: list[int], twice: bool = False) -> onnx.ModelProto:
    """Return left @ transposed(key), the transposed key used once or twice."""
    out = [shape[axis] for axis in perm]
    left = [*out[:-2], 5, out[-2]]
    nodes = [
        helper.make_node("Transpose", ["key"], ["turned"], "turn", perm=perm),
        helper.make_node("MatMul", ["left", "turned"], ["product"], "product"),
    ]
    outputs = [helper.make_tensor_value_info("product", TensorProto.FLOAT, [*out[:-2], 5, out[-1]])]
    if twice:
        outputs.append(helper.make_tensor_value_info("turned", TensorProto.FLOAT, out))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in (("left", left), ("key", shape))
    ]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), ir_version=10)


def rewritten(proto: onnx.ModelProto) -> onnx.ModelProto:
    return ir.to_proto(rewrite(ir.from_proto(proto)))


def same(left: onnx.ModelProto, right: onnx.ModelProto) -> bool:
    return list(left.graph.node) == list(right.graph.node)


def run(proto: onnx.ModelProto, output: int = 0) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {value.name: rng.standard_normal(value.shape).astype("f") for value in session.get_inputs()}
    return session.run(None, feeds)[output]


@pytest.mark.parametrize(
    ("perm", "shape", "first"),
    [([1, 2, 0], [7, 2, 3], [1, 0, 2]), ([0, 2, 3, 1], [2, 7, 3, 4], [0, 2, 1, 3])],
)
def test_keys_are_transposed_in_two_steps(perm: list[int], shape: list[int], first: list[int]) -> None:
    proto = graph(perm, shape)
    split = rewritten(proto)
    perms = [list(node.attribute[0].ints) for node in split.graph.node if node.op_type == "Transpose"]
    assert perms[0] == first
    assert perms[1] == [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    assert np.array_equal(run(split), run(proto))


@pytest.mark.parametrize("perm", [[1, 0, 2], [0, 2, 1]])
def test_other_transposes_stay(perm: list[int]) -> None:
    proto = graph(perm, [7, 2, 3])
    assert same(rewritten(proto), proto)


def test_what_others_use_stays() -> None:
    proto = graph([1, 2, 0], [7, 2, 3], twice=True)
    assert same(rewritten(proto), proto)


def scaled(kind: str, scale: Any, turned: int = 0, bias: bool = True, twice: bool = False) -> onnx.ModelProto:
    """Return x @ weights (4 channels) with a Mul or Div by ``scale`` behind it."""
    rng = np.random.default_rng(1)
    values = {"weights": rng.standard_normal((4, 3) if turned else (3, 4)), "scale": np.asarray(scale)}
    values |= {"bias": rng.standard_normal(4)} if bias else {}
    names = ["x", "weights", *(["bias"] if bias else [])]
    made = (
        helper.make_node("Gemm", names, ["made"], transB=turned)
        if bias
        else helper.make_node("MatMul", names, ["made"])
    )
    nodes = [made, helper.make_node(kind, ["made", "scale"], ["out"])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in ("out", *["made"] * twice)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])]
    constants = [numpy_helper.from_array(value.astype("f"), name) for name, value in values.items()]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, constants), ir_version=10)


@pytest.mark.parametrize("kind", ["Mul", "Div"])
@pytest.mark.parametrize("scale", [2.0, [2.0], [0.5, 1.0, 2.0, 4.0], [[0.5, 1.0, 2.0, 4.0]]])
@pytest.mark.parametrize(("turned", "bias"), [(0, True), (1, True), (0, False)])
def test_scales_go_into_the_weights(kind: str, scale: Any, turned: int, bias: bool) -> None:
    proto = scaled(kind, scale, turned, bias)
    folded = rewritten(proto)
    assert [node.op_type for node in folded.graph.node] == ["Gemm" if bias else "MatMul"]
    np.testing.assert_allclose(run(folded), run(proto), rtol=1e-6)


def test_a_product_that_others_use_keeps_its_scale() -> None:
    proto = scaled("Mul", 2.0, twice=True)
    assert same(rewritten(proto), proto)


def test_weights_that_others_use_keep_their_scale() -> None:
    proto = scaled("Mul", 2.0)
    proto.graph.node.append(helper.make_node("MatMul", ["x", "weights"], ["other"]))
    proto.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [2, 4]))
    assert same(rewritten(proto), proto)


def test_a_bias_may_be_shared() -> None:
    proto = scaled("Mul", [0.5, 1.0, 2.0, 4.0])
    proto.graph.node.append(helper.make_node("Add", ["x4", "bias"], ["other"]))
    proto.graph.input.append(helper.make_tensor_value_info("x4", TensorProto.FLOAT, [2, 4]))
    proto.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [2, 4]))
    folded = rewritten(proto)
    assert [node.op_type for node in folded.graph.node] == ["Gemm", "Add"]
    for index in range(2):
        np.testing.assert_allclose(run(folded, index), run(proto, index), rtol=1e-6)


def test_a_scale_by_row_stays() -> None:
    proto = scaled("Mul", [[2.0], [3.0]])
    assert same(rewritten(proto), proto)


def test_a_constant_over_a_product_stays() -> None:
    proto = scaled("Div", 2.0)
    division = proto.graph.node[1]
    division.input[:] = reversed(division.input)
    assert same(rewritten(proto), proto)
