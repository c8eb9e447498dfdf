"""The forms without TopK, computed Gather, ArgMax and integers: the same answers, the same tokens, and no such node."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from artifacts import Command
from helpers import fitted, tiny_vit
from onnx_graphs import graph_of
from torch import Tensor, nn

from gtp_exporters.agreement import make_session
from gtp_exporters.errors import LimitError
from gtp_exporters.graph.check import check_static, infer_shapes
from gtp_exporters.graph.precision import to_precision
from gtp_exporters.graph.ranks import INTEGERS, fits, to_form
from gtp_exporters.graph.structure import deciding_nodes
from gtp_exporters.graph.trace import tidy
from gtp_exporters.options import FORMS, ExportOptions
from gtp_models.frame.tokens import rank
from gtp_models.methods import make_settings
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import PRESETS, GTPConfig
from gtp_models.methods.settings import Settings
from gtp_runtime.precisions import WITHOUT_SORT

MEASURED = {name: value for name, value in PRESETS["measured"].items() if name != "schedule"}
RANKS = FORMS[1:]
METHODS: dict[str, tuple[Settings, int]] = {
    "measured": (GTPConfig(num_prop=2, **MEASURED), 1),
    "paper": (GTPConfig(num_prop=2, num_neighbours=4), 1),
    "tome": (make_settings("tome", num_prop=2), 1),
    "drop": (make_settings("drop", num_prop=2), 1),
}
FULL: dict[str, tuple[Settings, int]] = {
    "prune": (GTPConfig(num_prop=2, propagation="None", graph="None"), 1),
    "measured-batch": (GTPConfig(num_prop=2, **MEASURED), 3),
    "paper-batch": (GTPConfig(num_prop=2, num_neighbours=4), 2),
    "tome-batch": (make_settings("tome", num_prop=2), 2),
    "sparse": (GTPConfig(num_prop=2, num_neighbours=4, sparsity=0.6), 1),
    "mean": (GTPConfig(num_prop=2, propagation="Mean"), 1),
}


@cache
def graph_with(name: str) -> ir.Model:
    """Return the graph of a method, which no test changes."""
    settings, batch = (METHODS | FULL)[name]
    model = tiny_vit()
    apply(model, fitted(model, settings) if isinstance(settings, GTPConfig) else settings)
    return graph_of(model, batch)


def outputs(graph: ir.Model, images: np.ndarray) -> list[np.ndarray]:
    return make_session(graph).run(None, {graph.graph.inputs[0].name: images})


def check_same(graph: ir.Model, form: str) -> None:
    lowered = to_form(graph, form)
    check_static(lowered, "tensorrt")
    assert all(fits(node, form) for node in lowered.graph)
    images = np.random.default_rng(0).standard_normal(graph.graph.inputs[0].shape.numpy()).astype(np.float32)
    for before, after in zip(outputs(graph, images), outputs(lowered, images), strict=True):
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype


@pytest.mark.parametrize("name", [*METHODS, *(pytest.param(name, marks=pytest.mark.full) for name in FULL)])
def test_every_method_answers_the_same(name: str) -> None:
    """The outputs are equal, not close: products with 0 and 1 are exact."""
    graph = graph_with(name)
    for form in RANKS:
        check_same(graph, form)


@pytest.mark.parametrize("form", RANKS)
def test_what_a_form_has_not(form: str) -> None:
    """Only the trace outputs are integers."""
    lowered = to_form(graph_with("measured"), form)
    kinds = {node.op_type for node in lowered.graph}
    assert not kinds & {"TopK", "ArgMax", "GatherElements"}
    assert bool(kinds & {"Equal", "Greater"}) == (form == "ranks")
    integers = {value.name for node in lowered.graph for value in node.outputs if value.dtype in INTEGERS}
    assert integers == {"propagated", "received_by"}


class Ranked(nn.Module):
    """Scores (tokens,), in their order."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores, order = rank(images, 1)
        return scores, order.int()


def ranked(tokens: int) -> ir.Model:
    from gtp_exporters.graph.trace import _stable_sort

    program = torch.onnx.export(
        Ranked().eval(),
        (torch.zeros(tokens),),
        dynamo=True,
        opset_version=20,
        input_names=["scores"],
        output_names=["sorted", "order"],
        custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
        verbose=False,
        optimize=False,
    )
    assert program is not None
    return infer_shapes(tidy(program.model))


def test_ties_keep_the_current_order_and_the_smallest_difference_counts() -> None:
    scores = np.array([-1, 0, 0.5, 0, 1.5e-38, 0.5, np.nextafter(np.float32(0.5), np.float32(1)), -3], np.float32)
    graph = ranked(len(scores))
    expected = outputs(graph, scores)
    assert expected[1].tolist() == [0, 6, 2, 5, 4, 1, 3, 7]
    for form in RANKS:
        for before, after in zip(expected, outputs(to_form(graph, form), scores), strict=True):
            np.testing.assert_array_equal(before, after)


def test_half_precision_moves_tokens_in_its_own_type() -> None:
    """What decides stays float32, and so do the ranks; rows of fp16 tokens move by products in fp16."""
    graph = to_precision(graph_with("measured"), "fp16")
    for form in RANKS:
        check_same(graph, form)


def test_what_decides_is_found_where_nothing_sorts() -> None:
    """Quantising leaves it as it is."""
    graph, lowered = graph_with("measured"), to_form(graph_with("measured"), "ranks")
    there = {str(node.outputs[0].name) for node in lowered.graph}
    sorting = {str(node.outputs[0].name) for node in deciding_nodes(graph.graph)} & there
    ranking = {str(node.outputs[0].name) for node in deciding_nodes(lowered.graph)}
    assert sorting and sorting <= ranking


def test_too_large_a_matrix_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gtp_exporters.graph.ranks.LARGEST", 16 * 16)
    with pytest.raises(LimitError, match="--form sort"):
        to_form(graph_with("measured"), "ranks")


@pytest.mark.parametrize("target", [*WITHOUT_SORT])
def test_a_target_that_cannot_sort_takes_ranks(target: str) -> None:
    assert ExportOptions(target=target).chosen_form == WITHOUT_SORT[target]
    assert ExportOptions(target=target, form="ranks").chosen_form == "ranks" or target != "webnn"
    assert ExportOptions().chosen_form == "sort"
    with pytest.raises(LimitError, match="--form"):
        ExportOptions(target=target, form="sort")
    with pytest.raises(LimitError, match=target):
        ExportOptions(target=target, precision="int8")


@pytest.mark.full
def test_the_manifest_says_the_form(command: Command, tmp_path: Path) -> None:
    place = tmp_path / "export"
    made = command("export", "digits", "--form", "ranks", "--no-check", "--no-report", "-o", str(place))
    assert made.code == 0
    assert json.loads((place / "model.json").read_text("utf-8"))["form"] == "ranks"
    assert "form ranks" in command("inspect", str(place)).out
