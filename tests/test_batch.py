"""One graph for a range of batches: made of two, it answers as eager PyTorch for every number of images."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from helpers import METHOD_CASES, fitted, images_for, settings_of, tiny_vit
from test_export_forms import FORMS, FULL, MEASURED

from gtp_exporters.agreement import make_session
from gtp_exporters.errors import LimitError, StaticCheckError
from gtp_exporters.graph.batch import TRACED, free_batch
from gtp_exporters.graph.check import check_static, infer_shapes
from gtp_exporters.graph.ranks import to_form
from gtp_exporters.graph.rules import simplify
from gtp_exporters.graph.trace import Traced, to_onnx
from gtp_exporters.outputs import Outputs
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import GTPConfig

MOST = 6
SETTINGS = {"num_prop": 2, "num_neighbours": 4}
PIXELS = ([127.5, 120.0, 110.0], [60.0, 62.0, 64.0])


def drawn(traced: Traced, form: str = "sort") -> list[ir.Model]:
    graphs = [infer_shapes(simplify(to_onnx(traced, size, 20)[0])[0]) for size in TRACED]
    return [to_form(graph, form) for graph in graphs]


def free(traced: Traced, form: str = "sort") -> ir.Model:
    graph = free_batch(*drawn(traced, form), MOST)
    check_static(graph, "tensorrt" if form == "sort" else "onnxruntime")
    check_static(infer_shapes(graph), "onnxruntime")  # as a file that is read again
    return graph


def patched(settings: dict[str, Any], **model_args: Any) -> Any:
    model = tiny_vit(**model_args)
    return apply(model, fitted(model, GTPConfig(**{**SETTINGS, **settings})))


def inputs_of(traced: Traced, images: int) -> torch.Tensor:
    noise = images_for(traced.vit, images)
    return noise if traced.pixels is None else (noise.permute(0, 2, 3, 1) * 50 + 120).clip(0, 255).byte()


def check_answers(graph: ir.Model, traced: Traced) -> None:
    """Compare every output with eager PyTorch's for the fewest, a middle number and the most images."""
    session = make_session(graph)
    for images in (1, 2, 4, MOST):
        given = inputs_of(traced, images)
        with torch.inference_mode():
            expected = traced(given)
        expected = [expected] if isinstance(expected, torch.Tensor) else expected
        for ours, theirs in zip(session.run(None, {"images": given.numpy()}), expected, strict=True):
            if theirs.dtype == torch.int32:
                np.testing.assert_array_equal(ours, theirs.numpy())
            else:
                largest = float(theirs.abs().max())
                np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=2e-5 * largest + 1e-6)


@pytest.mark.full
def test_the_default_form_takes_every_number_of_images() -> None:
    traced = Traced(patched(MEASURED, reg_tokens=1), True)
    check_answers(free(traced), traced)


@pytest.mark.full
@pytest.mark.parametrize("form", {**FORMS, **FULL})
def test_every_form_of_gtp(form: str) -> None:
    settings, model_args, _ = {**FORMS, **FULL}[form]
    traced = Traced(patched(settings, **model_args), True)
    check_answers(free(traced), traced)


@pytest.mark.full
@pytest.mark.parametrize("method", METHOD_CASES)
def test_every_method(method: str) -> None:
    traced = Traced(apply(tiny_vit(), settings_of(method)), True)
    check_answers(free(traced), traced)


@pytest.mark.full
@pytest.mark.parametrize("form", ["ranks", "ranks-arithmetic"])
def test_ranks(form: str) -> None:
    traced = Traced(patched(MEASURED), True)
    check_answers(free(traced, form), traced)


@pytest.mark.full
@pytest.mark.parametrize("outputs", [Outputs("map"), Outputs("patches", (0, 2))], ids=str)
def test_outputs_of_every_patch(outputs: Outputs) -> None:
    model = tiny_vit()
    apply(model, GTPConfig(**{**SETTINGS, **MEASURED}), restore=True)
    traced = Traced(model, True, None, outputs)
    check_answers(free(traced), traced)


@pytest.mark.full
def test_pixels() -> None:
    traced = Traced(patched(MEASURED), True, PIXELS)
    check_answers(free(traced), traced)


def test_only_the_first_axis_is_free() -> None:
    graph = free(Traced(patched({"num_prop": 0}), True))
    for value in (*graph.graph.inputs, *graph.graph.outputs):
        first, *rest = value.shape
        assert str(first) == "batch" and all(isinstance(size, int) for size in rest)
    graph.graph.inputs[0].shape = ir.Shape(["batch", 3, "height", 32])
    with pytest.raises(StaticCheckError, match="images"):
        check_static(graph)


@pytest.mark.full
def test_what_compares_images_is_refused() -> None:
    """As ranks, the paper's graph of all tokens is compared over the whole batch."""
    with pytest.raises(LimitError, match="Equal"):
        free(Traced(patched({}), True), "ranks")


def scaled(factor: np.ndarray, images: int) -> ir.Model:
    """Return a graph that multiplies its input with a constant."""
    shape = ir.Shape([images, 2])
    given = ir.Value(name="images", shape=shape, type=ir.TensorType(ir.DataType.FLOAT))
    held = ir.Value(name="factor", const_value=ir.tensor(factor, name="factor"))
    held.shape, held.type = ir.Shape(factor.shape), ir.TensorType(ir.DataType.FLOAT)
    node = ir.node("Mul", [given, held], name="scale")
    made = node.outputs[0]
    made.name, made.shape, made.type = "scaled", shape, given.type
    graph = ir.Graph([given], [made], nodes=[node], initializers=[held], opset_imports={"": 20})
    return ir.Model(graph, ir_version=10)


def test_rows_for_each_image_are_continued() -> None:
    """The same rows, and rows that grow by a step, as offsets do."""
    for first in (np.ones((1, 2)), np.zeros((1, 2))):
        step = 0 if first.any() else 3
        tables = [(first + step * np.arange(size)[:, None]).astype(np.float32) for size in TRACED]
        graph = free_batch(*(scaled(*pair) for pair in zip(tables, TRACED, strict=True)), MOST)
        for images in (1, 5, MOST):
            (answer,) = make_session(graph).run(None, {"images": np.ones((images, 2), np.float32)})
            np.testing.assert_array_equal(answer, (first + step * np.arange(images)[:, None]))


@pytest.mark.parametrize(
    "tables",
    [
        ([[1, 1], [2, 5]], [[1, 1], [2, 5], [4, 4]]),  # no step
        ([[1, 1], [1, 1]], [[2, 2], [2, 2], [2, 2]]),
        ([[0.5, 0.5]], [[0.3, 0.3]]),  # no row for each image
        ([[0, 0], [4e6, 4e6]], [[0, 0], [4e6, 4e6], [8e6, 8e6]]),  # float32 does not count that far
    ],
)
def test_other_constants_are_refused_by_name(tables: tuple[Any, Any]) -> None:
    graphs = [scaled(np.array(table, np.float32), size) for table, size in zip(tables, TRACED, strict=True)]
    with pytest.raises(LimitError, match=r"Mul 'scale'.*--batch"):
        free_batch(graphs[0], graphs[1], MOST)


def test_other_nodes_are_refused() -> None:
    first, second = (scaled(np.ones((1, 2), np.float32), size) for size in TRACED)
    second.graph.append(ir.node("Abs", [second.graph.outputs[0]]))
    with pytest.raises(LimitError, match="nodes"):
        free_batch(first, second, MOST)


@pytest.mark.full
def test_images_in_another_axis_within_the_graph() -> None:
    """Attention pooling splits keys and values in front of the images."""
    traced = Traced(patched(MEASURED, global_pool="map"), True)
    check_answers(free(traced), traced)
