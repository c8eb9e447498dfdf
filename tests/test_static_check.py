"""The strict check names the node and the reason."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from gtp_exporters.errors import LimitError, StaticCheckError
from gtp_exporters.graph.check import FORBIDDEN, TENSORRT_OPERATORS, check_static, infer_shapes
from gtp_exporters.options import MAX_TOPK, check_limits, check_opset
from gtp_models.methods.baselines import DropSettings
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.settings import ModelShape, Settings
from gtp_models.methods.tome import ToMeSettings
from gtp_models.plan import LayerPlan, Plan


def graph(*nodes: onnx.NodeProto, size: int | str = 8, opset: int = 20, **constants: np.ndarray) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])
    y = helper.make_empty_tensor_value_info("y")
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(list(nodes), "test", [x], [y], initializers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def inferred(proto: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def refused(proto: onnx.ModelProto, target: str = "tensorrt") -> str:
    with pytest.raises(StaticCheckError) as caught:
        check_static(inferred(proto), target)
    return str(caught.value)


def test_a_static_graph_passes() -> None:
    proto = graph(helper.make_node("Relu", ["x"], ["y"]))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8]))
    check_static(infer_shapes(ir.from_proto(proto)))


def test_a_dynamic_axis_is_named() -> None:
    message = refused(graph(helper.make_node("Relu", ["x"], ["y"], name="relu_7"), size="n"))
    assert "'x' has a dynamic or empty axis" in message
    assert "relu_7" in message


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_an_operator_that_depends_on_data_is_never_static(target: str) -> None:
    message = refused(graph(helper.make_node("NonZero", ["x"], ["y"], name="find")), target)
    assert "NonZero 'find': sizes or control flow that depend on data" in message


def test_shape_arithmetic_is_refused() -> None:
    assert "Shape 'shape_1'" in refused(graph(helper.make_node("Shape", ["x"], ["y"], name="shape_1")))


def test_an_operator_outside_of_tensorrts_list_is_refused_for_tensorrt_alone() -> None:
    proto = graph(helper.make_node("Hardmax", ["x"], ["y"], name="h"))
    assert "TensorRT's parser" in refused(proto)
    check_static(inferred(proto), "onnxruntime")


def test_a_foreign_domain_is_refused() -> None:
    proto = graph(helper.make_node("Relu", ["x"], ["y"], name="r", domain="com.example"))
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    message = refused(proto)
    assert "com.example" in message


@pytest.mark.parametrize(("k", "fits"), [(MAX_TOPK, True), (MAX_TOPK + 1, False)])
def test_topk_ends_at_3840(k: int, fits: bool) -> None:
    node = helper.make_node("TopK", ["x", "k"], ["y", "at"], name="top")
    proto = graph(node, size=5000, k=np.array([k]))
    if fits:
        check_static(inferred(proto))
    else:
        assert "TopK 'top': k is 3841, TensorRT's limit is 3840" in refused(proto)
    check_static(inferred(proto), "onnxruntime")


def test_a_computed_k_is_refused() -> None:
    cast = helper.make_node("Cast", ["n"], ["k"], to=TensorProto.INT64)
    proto = graph(cast, helper.make_node("TopK", ["x", "k"], ["y", "at"], name="top"), n=np.array([3], np.int32))
    assert "its k is computed" in refused(proto)


def test_opsets_outside_of_the_range_are_refused() -> None:
    assert "opset 12" in refused(graph(helper.make_node("Relu", ["x"], ["y"]), opset=12))
    with pytest.raises(LimitError, match="opset 9 "):
        check_opset(9)


def test_every_finding_is_listed() -> None:
    message = refused(graph(helper.make_node("Shape", ["x"], ["s"]), helper.make_node("NonZero", ["x"], ["y"])))
    assert "Shape" in message
    assert "NonZero" in message


def test_no_operator_is_both_taken_and_forbidden() -> None:
    assert not FORBIDDEN & TENSORRT_OPERATORS


def check_settings(settings: Settings, counts: list[int], target: str) -> None:
    """Check a model whose layers have these numbers of tokens."""
    given = settings.num_prop
    amounts = given if isinstance(given, tuple) else (given or 0,) * len(counts)
    layers = [LayerPlan(count, count - amount, amount, 0, 0) for count, amount in zip(counts, amounts, strict=True)]
    shape = ModelShape((14, 14), 1, True, 24, (3,) * len(counts), 8)
    plan = Plan(settings, shape, tuple(layers), embed=0, head=0, setup=0, pooling=0, dense=1)
    check_limits(plan, target)


def test_exact_sparsity_beyond_topk_is_refused_for_tensorrt_alone() -> None:
    config = GTPConfig(sparsity=0.6)
    with pytest.raises(LimitError, match=r"3840.*sparsity=1\.0 .*0\.902.*--target onnxruntime"):
        check_settings(config, [197] * 12, "tensorrt")
    check_settings(config, [197] * 12, "onnxruntime")
    check_settings(config, [65] * 6, "tensorrt")
    check_settings(GTPConfig(sparsity=0.91), [197] * 12, "tensorrt")
    check_settings(GTPConfig(num_prop=(0, 1), sparsity=0.6), [197, 50], "tensorrt")


def test_more_tokens_than_topk_ranks_are_refused_for_tensorrt_alone() -> None:
    for settings, most in ((GTPConfig(num_prop=1), 3840), (ToMeSettings(num_prop=1), 7680)):
        check_settings(settings, [most], "tensorrt")
        with pytest.raises(LimitError, match=r"layer 1 .*3840: .*--img-size.*--target"):
            check_settings(settings, [most, most + 1], "tensorrt")
        check_settings(settings, [most + 1], "openvino")
    check_settings(DropSettings(num_prop=1), [9999], "tensorrt")
    check_settings(GTPConfig(num_prop=0), [9999], "tensorrt")
