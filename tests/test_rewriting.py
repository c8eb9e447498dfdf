import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gtp_exporters.rewriting import split_key_transposes


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
        nodes.append(helper.make_node("Identity", ["turned"], ["again"]))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in (("left", left), ("key", shape))
    ]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), ir_version=10)


def run(proto: onnx.ModelProto) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {value.name: rng.standard_normal(value.shape).astype("f") for value in session.get_inputs()}
    return session.run(["product"], feeds)[0]


@pytest.mark.parametrize(
    ("perm", "shape", "first"),
    [([1, 2, 0], [7, 2, 3], [1, 0, 2]), ([0, 2, 3, 1], [2, 7, 3, 4], [0, 2, 1, 3])],
)
def test_keys_are_transposed_in_two_steps(perm: list[int], shape: list[int], first: list[int]) -> None:
    proto = graph(perm, shape)
    split = split_key_transposes(proto)
    perms = [list(node.attribute[0].ints) for node in split.graph.node if node.op_type == "Transpose"]
    assert perms[0] == first
    assert perms[1] == [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    assert np.array_equal(run(split), run(proto))


@pytest.mark.parametrize("perm", [[1, 0, 2], [0, 2, 1]])
def test_other_transposes_stay(perm: list[int]) -> None:
    proto = graph(perm, [7, 2, 3])
    assert split_key_transposes(proto) == proto


def test_what_others_use_stays() -> None:
    proto = graph([1, 2, 0], [7, 2, 3], twice=True)
    assert split_key_transposes(proto) == proto
