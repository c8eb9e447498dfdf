"""Lower precision written into the graph: what decides which tokens leave stays fp32, answers stay near."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from helpers import images_for, tiny_vit
from onnx.reference import ReferenceEvaluator

from gtp_exporters.agreement import make_session
from gtp_exporters.errors import LimitError
from gtp_exporters.graph.check import check_static, infer_shapes
from gtp_exporters.graph.precision import precision_of, takes, to_precision
from gtp_exporters.graph.rules import simplify
from gtp_exporters.graph.structure import deciding_nodes
from gtp_exporters.graph.trace import Traced, to_onnx
from gtp_models.frame.patch import trace_tokens
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import GTPConfig
from gtp_runtime.precisions import converted_names

LOW = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
FP16_MAX = float(np.finfo(np.float16).max)
Run = Callable[[ir.Model, np.ndarray], dict[str, np.ndarray]]


def exported(batch: int = 1, opset: int = 20, **settings: Any) -> tuple[Any, ir.Model]:
    model = apply(tiny_vit(), GTPConfig(**{"num_prop": 2, "num_neighbours": 4} | settings))
    return model, infer_shapes(simplify(to_onnx(Traced(model, True), batch, opset)[0])[0])


@pytest.fixture(scope="module")
def gtp() -> tuple[Any, ir.Model]:
    return exported(2)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_graph_is_static_typed_and_keeps_its_interface(gtp: tuple[Any, ir.Model], precision: str) -> None:
    graph = to_precision(gtp[1], precision).graph
    check_static(to_precision(gtp[1], precision))
    assert precision_of(to_precision(gtp[1], precision)) == precision
    for found, given in ((graph.outputs, gtp[1].graph.outputs), (graph.inputs, gtp[1].graph.inputs)):
        assert [(value.name, value.dtype, value.shape) for value in found] == [
            (value.name, value.dtype, value.shape) for value in given
        ]
    assert {value.dtype for name, value in graph.initializers.items() if "fc1.weight" in name} == {LOW[precision]}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_what_decides_stays_fp32(gtp: tuple[Any, ir.Model], precision: str) -> None:
    for node in to_precision(gtp[1], precision).graph:
        if node.op_type in ("TopK", "Softmax", "ReduceSum", "ReduceMax", "Log", "LayerNormalization"):
            assert node.outputs[0].dtype == ir.DataType.FLOAT, node.name
        if node.op_type == "Gelu":
            assert node.outputs[0].dtype == LOW[precision], node.name


def test_nothing_is_kept_where_no_token_leaves() -> None:
    _, graph = exported(num_prop=0)
    assert deciding_nodes(graph.graph) == set()
    low = to_precision(graph, "fp16").graph
    kept = {node.op_type for node in low if node.outputs[0].dtype == ir.DataType.FLOAT}
    assert kept == {"Add", "Cast", "Concat", "LayerNormalization", "Reshape", "Transpose"}


@pytest.mark.parametrize(
    ("preset", "times"),
    [
        ("paper", 0.9),
        ("measured", 10),
        *(pytest.param(*case, marks=pytest.mark.full) for case in (("paper", 10), ("measured", 0.9))),
    ],
)
def test_sums_that_fp16_cannot_hold_stay_fp32(preset: str, times: float) -> None:
    """What is added up between the layers is scaled to nearly fp16's largest number, where its squares overflow, or to
    10 times as much, where it does itself; tokens are merged by size.
    """
    model = tiny_vit()
    with torch.no_grad():
        model.pos_embed *= times * FP16_MAX / model.pos_embed.abs().max()
    graph = reduced(model, preset)
    images = images_for(model, 2).numpy()
    expected = on_onnxruntime(graph, images)["logits"]
    for run in (in_numpy, on_onnxruntime):
        found = run(to_precision(graph, "fp16"), images)["logits"]
        assert np.isfinite(found).all()
        assert np.abs(found - expected).max() <= 1.5e-2 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("preset", "times", "finite"),
    [
        ("measured", 0.9, True),
        ("paper", 3, False),
        *(pytest.param(*case, marks=pytest.mark.full) for case in (("paper", 0.9, True), ("measured", 3, False))),
    ],
)
def test_attention_logits_up_to_the_largest_of_fp16(preset: str, times: float, finite: bool) -> None:
    model = tiny_vit()
    images = images_for(model, 2)
    with torch.inference_mode():
        for block in model.blocks:
            block.attn.qkv.weight[: model.embed_dim] *= times * FP16_MAX / largest_logit(model, block.attn, images)
            block.attn.qkv.bias[: model.embed_dim] = 0
        assert largest_logit(model, model.blocks[-1].attn, images) > 0.5 * times * FP16_MAX
    low = to_precision(reduced(model, preset), "fp16")
    assert np.isfinite(in_numpy(low, images.numpy())["logits"]).all() == finite


def reduced(model: Any, preset: str) -> ir.Model:
    """Return the graph of a tiny model that merges two tokens a layer, two images a run."""
    config = GTPConfig.preset(preset, num_prop=2, **({"num_neighbours": 4} if preset == "paper" else {}))
    return infer_shapes(simplify(to_onnx(Traced(apply(model, config), True), 2, 20)[0])[0])


def largest_logit(model: Any, attention: Any, images: torch.Tensor) -> float:
    """Return the largest absolute attention logit of a layer."""
    seen: list[torch.Tensor] = []
    hook = attention.qkv.register_forward_hook(lambda module, given, made: seen.append(made))
    model(images)
    hook.remove()
    made = seen[0].unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return float((made[0] * attention.scale @ made[1].transpose(-1, -2)).abs().max())


SETTINGS = [{}, {"selection": "CosSimMax"}, {"propagation": "Mean"}, {"num_prop": 0}]
IMAGES = 16


def check_answers(run: Run, settings: dict[str, Any], precision: str, limit: float, agreeing: float) -> None:
    """A share ``agreeing`` of the images keeps the same tokens; each of those answers within ``limit``."""
    model, graph = exported(IMAGES, **settings)
    images = images_for(model, IMAGES)
    with torch.inference_mode(), trace_tokens(model) as trace:
        expected = model(images).numpy()
    outputs = run(to_precision(graph, precision), images.numpy())
    same = np.ones(IMAGES, bool)
    start = 0
    for step in trace:
        left = step.propagated.numpy()
        if left.shape[1]:
            found = outputs["propagated"][:, start : start + left.shape[1]]
            same &= (np.sort(found, 1) == np.sort(left, 1)).all(1)
            start += left.shape[1]
    errors = np.abs(outputs["logits"] - expected).max(1) / np.abs(expected).max()
    assert same.mean() >= agreeing
    assert errors[same].max() <= limit, errors


@np.errstate(over="ignore", invalid="ignore")
def in_numpy(graph: ir.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Round every value to the graph's type, and overflow: ONNX Runtime computes fp16 graphs in float32 on CPUs."""
    evaluator, names = ReferenceEvaluator(ir.to_proto(graph)), [str(output.name) for output in graph.graph.outputs]
    return dict(zip(names, evaluator.run(names, {"images": images}), strict=True))


def on_onnxruntime(graph: ir.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    session = make_session(graph)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def on_openvino(graph: ir.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Run as the graph says: without the hint OpenVINO computes the fp32 parts in bf16 as well."""
    openvino = pytest.importorskip("openvino")  # ONNX Runtime has no bf16 on CPUs
    core, settings = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(ir.to_proto(graph).SerializeToString()), "CPU", settings)
    return {output.any_name: value for output, value in compiled(images).items()}


@pytest.mark.parametrize("settings", [*SETTINGS, pytest.param({"sparsity": 0.5}, marks=pytest.mark.full)])
def test_fp16_answers_stay_near_for_every_image(settings: dict[str, Any]) -> None:
    check_answers(on_onnxruntime, settings, "fp16", limit=1.5e-2, agreeing=0.9)


@pytest.mark.parametrize("settings", SETTINGS)
def test_bf16_answers_stay_near_for_every_image(settings: dict[str, Any]) -> None:
    check_answers(on_openvino, settings, "bf16", limit=5e-2, agreeing=0.9)


def test_lowering_leaves_the_graph_given_as_it_was(gtp: tuple[Any, ir.Model]) -> None:
    before = ir.to_proto(gtp[1])
    for precision in converted_names("tensorrt"):
        to_precision(gtp[1], precision)
        assert ir.to_proto(gtp[1]) == before


def test_fp32_is_a_copy(gtp: tuple[Any, ir.Model]) -> None:
    copy = to_precision(gtp[1], "fp32")
    assert ir.to_proto(copy) == ir.to_proto(gtp[1])
    assert copy is not gtp[1]


def test_what_cannot_be_converted_is_refused(gtp: tuple[Any, ir.Model]) -> None:
    with pytest.raises(LimitError, match="'int4'.*fp16, bf16"):
        to_precision(gtp[1], "int4")
    with pytest.raises(LimitError, match="fp16 .*to fp32"):
        to_precision(to_precision(gtp[1], "fp16"), "fp32")
    large = gtp[1].clone()
    weight = next(value for name, value in large.graph.initializers.items() if "fc1.weight" in name)
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(1e6), name=weight.name)
    with pytest.raises(LimitError, match=r"fc1\.weight .*fp16 .*bf16"):
        to_precision(large, "fp16")
    to_precision(large, "bf16")


def test_an_operator_without_bf16_stays_fp32() -> None:
    assert not takes("Conv", 20, LOW["bf16"])
    assert takes("Conv", 22, LOW["bf16"])
    assert takes("Conv", 20, LOW["fp16"])


@pytest.mark.parametrize("with_trace", [True, False])
def test_pixels_in_equal_floats_in(with_trace: bool) -> None:
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    model = apply(tiny_vit(), GTPConfig(num_prop=2, num_neighbours=4))
    traced = Traced(model, with_trace, (mean, std))
    graph = infer_shapes(simplify(to_onnx(traced, 2, 20)[0])[0])
    check_static(graph)
    assert graph.graph.inputs[0].dtype == ir.DataType.UINT8
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    logits = on_onnxruntime(graph, pixels)["logits"]
    floats = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(floats)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
