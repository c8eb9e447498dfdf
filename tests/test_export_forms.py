"""Every form that GTP takes: the ONNX graph is static, lean and answers as eager PyTorch does."""

from typing import Any

import onnx_ir as ir
import pytest
from helpers import VARIANTS, fitted, tiny_vit
from onnx_graphs import check_answers, graph_of, operators

from gtp_exporters.graph.check import check_static, infer_shapes
from gtp_exporters.graph.rules import simplify
from gtp_exporters.graph.trace import Traced, to_onnx
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import PRESETS, GTPConfig
from gtp_models.methods.gtp.selections import SELECTIONS

MEASURED = {name: value for name, value in PRESETS["measured"].items() if name != "schedule"}
Form = tuple[dict[str, Any], dict[str, Any], int]
FORMS: dict[str, Form] = {
    "default": ({}, {}, 1),
    "batch": ({}, {}, 3),
    "schedule": ({"num_prop": (0, 3, 0)}, {}, 1),
    "dense": ({"num_prop": 0}, {}, 2),
    "mean": ({"propagation": "Mean"}, {}, 2),
    "prune": ({"propagation": "None", "graph": "None"}, {}, 1),
    "measured": (MEASURED, {}, 1),
    "gap": ({"graph": "Semantic"}, {"class_token": False, "global_pool": "avg", "fc_norm": False}, 2),
    "normed": ({}, {"qk_norm": True, "scale_attn_norm": True, "init_values": 0.1}, 1),
}
FULL: dict[str, Form] = {
    **{
        f"{selection}-{batch}": ({"selection": selection}, {}, batch)
        for selection in SELECTIONS.names()
        for batch in (1, 2)
    },
    **{
        f"{graph}-{scale}-{batch}": ({"graph": graph, "token_scale": scale}, {}, batch)
        for graph in ("Spatial", "Semantic", "Mixed")
        for scale in (True, False)
        for batch in (1, 2)
    },
    **{f"sparse-{sparsity}": ({"sparsity": sparsity}, {}, 1) for sparsity in (0.05, 0.3, 0.9)},
    "sparse": ({"sparsity": 0.6}, {}, 2),
    "registers": ({"graph": "Spatial"}, {"reg_tokens": 3}, 1),
    "oblong": ({"token_scale": False}, {"img_size": (32, 48)}, 1),
    "prune-batch": ({"propagation": "None"}, {"reg_tokens": 1}, 4),
    "measured-batch": (MEASURED, {"reg_tokens": 1}, 3),
    "measured-gap": (MEASURED, {"class_token": False, "global_pool": "avg"}, 2),
    "nearest": ({"graph": "Nearest"}, {}, 2),
    "gap-mean": ({"propagation": "Mean"}, {"class_token": False, "global_pool": "avg"}, 1),
}


def model_and_graph(settings: dict[str, Any], model_args: dict[str, Any], batch: int) -> tuple[Any, ir.Model]:
    model = tiny_vit(**model_args)
    apply(model, fitted(model, GTPConfig(**{"num_prop": 2, "num_neighbours": 4, **settings})))
    return model, graph_of(model, batch)


@pytest.mark.full
@pytest.mark.parametrize(
    "settings",
    [{"propagation": "None"}, {"propagation": "Mean"}, {"alpha": 0.0}],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 2])
def test_scales_that_stay_at_1_cost_nothing(settings: dict[str, Any], batch: int) -> None:
    """The logarithm of 1 would be added to every attention map."""
    scaled, plain = (
        [node.op_type for node in model_and_graph({**settings, "token_scale": scale}, {}, batch)[1].graph]
        for scale in (True, False)
    )
    assert scaled == plain
    assert "Log" not in scaled and "Log" in operators(model_and_graph({}, {}, batch)[1])


def test_no_long_vectors() -> None:
    """onnxsim keeps track of each entry of a vector: the graph of a batch, flattened, cost it gigabytes."""
    model = apply(tiny_vit(), GTPConfig(num_prop=2, num_neighbours=4))
    values = ir.convenience.create_value_mapping(to_onnx(Traced(model, True), 3, 20)[0].graph).values()
    shapes = [value.shape.numpy() for value in values if value.shape is not None and not value.is_initializer()]
    assert max(shape[0] for shape in shapes if len(shape) == 1) < 16 * 16


def check_form(settings: dict[str, Any], model_args: dict[str, Any], batch: int) -> None:
    model, graph = model_and_graph(settings, model_args, batch)
    is_traced = any(model.blocks.num_prop) and model.blocks.selects  # what is fixed is no output
    assert check_answers(graph, model, batch) == is_traced


@pytest.mark.parametrize("form", FORMS)
def test_onnx_equals_eager(form: str) -> None:
    check_form(*FORMS[form])


@pytest.mark.full
@pytest.mark.parametrize("form", FULL)
def test_onnx_equals_eager_in_every_form(form: str) -> None:
    check_form(*FULL[form])


@pytest.mark.full
@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_equals_eager_in_blocks_of_rows(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """As with many tokens."""
    monkeypatch.setattr("gtp_models.methods.gtp.selections.BLOCK", 4)
    check_form(MEASURED, {"reg_tokens": 1}, batch)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(overrides, id=name, marks=() if name == "AIMv2's parts" else pytest.mark.full)
        for name, overrides in VARIANTS.items()
    ],
)
def test_onnx_equals_eager_for_every_kind_of_model(overrides: dict[str, Any]) -> None:
    check_form({}, overrides, 1)


@pytest.mark.parametrize("opset", [18, 21, *(pytest.param(opset, marks=pytest.mark.full) for opset in (19, 22, 23))])
def test_opsets(opset: int) -> None:
    model = apply(tiny_vit(), GTPConfig(num_prop=2, num_neighbours=4))
    graph = infer_shapes(simplify(to_onnx(Traced(model, True), 1, opset)[0])[0])
    check_static(graph)
    assert graph.opset_imports == {"": opset}


def test_a_batch_gathers_without_expanded_indices() -> None:
    _, graph = model_and_graph({}, {}, 3)
    assert {"GatherElements", "GatherND", "Expand"}.isdisjoint(operators(graph))


def test_no_trace_output_when_it_is_not_wanted() -> None:
    graph, _ = to_onnx(Traced(apply(tiny_vit(), GTPConfig(num_prop=2, num_neighbours=4)), False), 1, 20)
    assert [output.name for output in graph.graph.outputs] == ["logits"]
