"""Lower precision written into the graph: what decides which tokens leave stays fp32, answers stay near."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import images_for, tiny_vit
from onnx import TensorProto, numpy_helper

from gtp_exporters.errors import LimitError
from gtp_exporters.precision import kept_nodes, precision_of, takes, to_precision
from gtp_exporters.simplify import simplify
from gtp_exporters.static_check import check_static, infer_shapes
from gtp_exporters.tracing import Traced, to_onnx
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import GTPConfig


def exported(batch: int = 1, opset: int = 20, **settings: Any) -> tuple[Any, onnx.ModelProto]:
    model = apply(tiny_vit(), GTPConfig(**{"num_prop": 2, "num_neighbours": 4} | settings))
    return model, infer_shapes(simplify(to_onnx(Traced(model, True), batch, opset)[0])[0])


@pytest.fixture(scope="module")
def gtp() -> tuple[Any, onnx.ModelProto]:
    return exported(2)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_graph_is_static_typed_and_keeps_its_interface(gtp: tuple[Any, onnx.ModelProto], precision: str) -> None:
    proto = to_precision(gtp[1], precision)
    check_static(proto)
    assert precision_of(proto) == precision
    assert [(value.name, value.type) for value in proto.graph.output] == [
        (value.name, value.type) for value in gtp[1].graph.output
    ]
    assert proto.graph.input[0] == gtp[1].graph.input[0]
    low = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    gemms = [tensor for tensor in proto.graph.initializer if "fc1.weight" in tensor.name]
    assert {tensor.data_type for tensor in gemms} == {low}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_what_decides_stays_fp32(gtp: tuple[Any, onnx.ModelProto], precision: str) -> None:
    proto = to_precision(gtp[1], precision)
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*proto.graph.value_info, *proto.graph.output)}
    for node in proto.graph.node:
        if node.op_type in ("TopK", "Softmax", "ReduceSum", "ReduceMax", "Log"):
            assert kinds[node.output[0]] == TensorProto.FLOAT, node.name
        if node.op_type == "LayerNormalization":
            assert kinds[node.output[0]] != TensorProto.FLOAT, node.name


def test_nothing_is_kept_where_no_token_leaves() -> None:
    _, proto = exported(num_prop=0)
    assert kept_nodes(proto.graph) == set()
    casts = [node for node in to_precision(proto, "fp16").graph.node if node.op_type == "Cast"]
    assert len(casts) == 2


@pytest.mark.parametrize("settings", [{}, {"selection": "CosSimMax"}, {"propagation": "Mean"}, {"sparsity": 0.5}])
def test_fp16_answers_stay_near(settings: dict[str, Any]) -> None:
    model, proto = exported(4, **settings)
    images = images_for(model, 4)
    with torch.inference_mode():
        expected = model(images).numpy()
    session = onnxruntime.InferenceSession(to_precision(proto, "fp16").SerializeToString())
    logits = session.run(["logits"], {"images": images.numpy()})[0]
    assert np.median(np.abs(logits - expected).max(1)) <= 3e-2 * np.abs(expected).max()


def test_bf16_answers_stay_near() -> None:
    openvino = pytest.importorskip("openvino")  # ONNX Runtime has no bf16 on CPUs
    model, proto = exported(num_prop=0)
    images = images_for(model, 1)
    with torch.inference_mode():
        expected = model(images).numpy()
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(to_precision(proto, "bf16").SerializeToString()), "CPU")
    logits = compiled(images.numpy())[0]
    assert np.abs(logits - expected).max() <= 1e-1 * np.abs(expected).max()


def test_fp32_is_a_copy(gtp: tuple[Any, onnx.ModelProto]) -> None:
    copy = to_precision(gtp[1], "fp32")
    assert copy == gtp[1]
    assert copy is not gtp[1]


def test_what_cannot_be_converted_is_refused(gtp: tuple[Any, onnx.ModelProto]) -> None:
    with pytest.raises(LimitError, match="choose one of fp32, fp16, bf16"):
        to_precision(gtp[1], "int4")
    with pytest.raises(LimitError, match="is fp16 already, not to be made fp32"):
        to_precision(to_precision(gtp[1], "fp16"), "fp32")
    large = onnx.ModelProto()
    large.CopyFrom(gtp[1])
    weight = next(tensor for tensor in large.graph.initializer if "fc1.weight" in tensor.name)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1e6, weight.name))
    with pytest.raises(LimitError, match=r"fc1\.weight holds .*more than fp16 can: use bf16"):
        to_precision(large, "fp16")
    to_precision(large, "bf16")


def test_an_operator_without_bf16_stays_fp32() -> None:
    assert not takes("Conv", 20, TensorProto.BFLOAT16)
    assert takes("Conv", 22, TensorProto.BFLOAT16)
    assert takes("Conv", 20, TensorProto.FLOAT16)


@pytest.mark.parametrize("with_trace", [True, False])
def test_pixels_in_equal_floats_in(with_trace: bool) -> None:
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    model = apply(tiny_vit(), GTPConfig(num_prop=2, num_neighbours=4))
    traced = Traced(model, with_trace, (mean, std))
    proto = infer_shapes(simplify(to_onnx(traced, 2, 20)[0])[0])
    check_static(proto)
    assert proto.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    logits = session.run(["logits"], {"images": pixels})[0]
    floats = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(floats)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
