"""A graph as a PyTorch module: what ONNX Runtime answers, it answers too, for every method and form."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from test_ranks import FULL, METHODS, graph_with, outputs

from gtp_exporters.converting.torch_graph import OPERATORS, TorchGraph, example
from gtp_exporters.errors import ConversionError
from gtp_exporters.graph.check import TENSORRT_OPERATORS, infer_shapes
from gtp_exporters.graph.files import read
from gtp_exporters.graph.precision import to_precision
from gtp_exporters.graph.ranks import to_form
from gtp_exporters.options import FORMS


def check(graph: ir.Model) -> None:
    """Assert that the module of a graph answers as ONNX Runtime does."""
    images = np.random.default_rng(0).standard_normal(example(graph).shape).astype(np.float32)
    with torch.no_grad():
        answers = TorchGraph(graph)(torch.from_numpy(images))
    for ours, theirs in zip(answers, outputs(graph, images), strict=True):
        assert ours.numpy().dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * max(1, abs(theirs).max()))


@pytest.fixture(scope="module")
def graph(digits: Path) -> ir.Model:
    """The graph of an export, which no test changes."""
    return infer_shapes(read(digits / "model.onnx"))


@pytest.mark.parametrize("form", FORMS)
def test_a_module_answers_as_its_graph(form: str, graph: ir.Model) -> None:
    check(to_form(graph, form))


@pytest.mark.full
@pytest.mark.parametrize("method", sorted(METHODS | FULL))
def test_a_module_of_any_method_answers_as_its_graph(method: str) -> None:
    check(graph_with(method))


def test_a_module_in_fp16_has_half_weights_and_answers_in_fp32(graph: ir.Model) -> None:
    module = TorchGraph(to_precision(graph, "fp16"))
    assert torch.float16 in {weight.dtype for weight in module.buffers()}
    with torch.no_grad():
        answers = module(example(graph))
    assert [values.dtype for values in answers][:2] == [torch.float32, torch.int32]


def test_weights_share_no_memory(graph: ir.Model) -> None:
    """XNNPACK writes views of one tensor wrongly, and says nothing."""
    weights = [weight for weight in TorchGraph(graph).buffers() if weight.numel()]
    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == len(weights)
    assert all(weight.is_contiguous() for weight in weights)


def test_whole_numbers_are_divided_and_expanded_as_such() -> None:
    value = ir.Value(name="x", shape=ir.Shape([2, 1]), type=ir.TensorType(ir.DataType.INT64))
    three, shape = (
        ir.Value(name=name, const_value=ir.tensor(np.array(numbers), name=name))
        for name, numbers in (("three", 3), ("shape", [2, 2]))
    )
    parts = ir.node("Div", [value, three], name="parts")
    wide = ir.node("Expand", [parts.outputs[0], shape], name="wide")
    graph = ir.Graph([value], wide.outputs, nodes=[parts, wide], initializers=[three, shape], name="whole")
    (answers,) = TorchGraph(ir.Model(graph, ir_version=10))(torch.tensor([[7], [-7]]))
    assert answers.tolist() == [[2, 2], [-2, -2]]


def test_an_operator_without_a_form_is_refused_by_name() -> None:
    value = ir.Value(name="x", shape=ir.Shape([2, 3]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Einsum", [value], {"equation": "ij->ji"}, name="layer.3")
    graph = ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 20}, name="one")
    with pytest.raises(ConversionError, match=r"layer\.3.*Einsum"):
        TorchGraph(ir.Model(graph, ir_version=10))


def test_operators_are_those_of_exports() -> None:
    assert set(OPERATORS) <= TENSORRT_OPERATORS
