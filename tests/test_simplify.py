"""Simplified graphs are kept only if every image agrees; errors of our own rewriting are not hidden."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from helpers import tiny_vit
from onnx_graphs import operators

from gtp_exporters import agreement
from gtp_exporters.agreement import answers, compare
from gtp_exporters.errors import SimplifyError
from gtp_exporters.graph import files, rules
from gtp_exporters.graph.trace import Traced, to_onnx
from gtp_models.methods.apply import apply
from gtp_models.methods.gtp.config import GTPConfig

Change = Callable[[ir.Model], ir.Model]


@pytest.fixture(scope="module")
def traced() -> ir.Model:
    return to_onnx(Traced(apply(tiny_vit(), GTPConfig(num_prop=2, num_neighbours=4)), True), 3, 20)[0]


def scaled(model: ir.Model, share: list[float], name: str = "logits") -> ir.Model:
    """Return a copy with an output multiplied by a factor for each image of the batch."""
    copy = model.clone()
    index = [value.name for value in copy.graph.outputs].index(name)
    inner = copy.graph.outputs[index]
    assert inner.dtype is not None
    outer = ir.Value(name=name, shape=inner.shape, type=ir.TensorType(inner.dtype))
    inner.name = "before"
    factor = ir.tensor(np.array(share, inner.dtype.numpy())[:, None], name="factor")
    scale = ir.Value(name="factor", const_value=factor, shape=ir.Shape((3, 1)), type=ir.TensorType(inner.dtype))
    copy.graph.register_initializer(scale)
    copy.graph.append(ir.node("Mul", [inner, scale], outputs=[outer]))
    copy.graph.outputs[index] = outer
    return copy


def test_every_image_must_agree(traced: ir.Model) -> None:
    before = answers(traced)
    assert compare(before, before).ok
    for share in ([1.0, 1.0, 2.0], [2.0, 2.0, 2.0]):
        assert not compare(before, answers(scaled(traced, share))).ok


def test_a_graph_that_differs_for_one_seed_is_not_used(traced: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of seed 0 alone is scaled: the other seeds agree."""
    monkeypatch.setattr(rules, "rewrite", lambda model: scaled(model, [1.0, 1.0, 2.0]))
    with pytest.raises(SimplifyError, match="--no-simplify"):
        rules.simplify(traced)


def given(logits: list[float], left: list[int]) -> dict[str, np.ndarray]:
    return {"logits": np.array(logits, np.float32)[:, None], "propagated": np.array(left, np.int32)[:, None]}


@pytest.mark.parametrize(
    ("right", "ok", "note"),
    [
        ([given([1, 2], [3, 4]), given([1, 2], [3, 4])], True, ""),
        ([given([1, 9], [3, 5]), given([1, 2], [3, 4])], True, "in 1 of 4 seeded images (near-ties)"),
        ([given([1, 9], [3, 4]), given([1, 2], [3, 4])], False, ""),  # other answers with the same tokens
        ([given([9, 9], [6, 5]), given([9, 9], [6, 5])], False, "in 4 of 4"),  # no image agrees
    ],
)
def test_only_images_whose_tokens_differ_are_ties(right: agreement.Answers, ok: bool, note: str) -> None:
    found = compare([given([1, 2], [3, 4])] * 2, right)
    assert found.ok == ok
    assert note in found.note
    assert bool(found.note) == bool(note)


def test_a_graph_without_the_trace_has_no_ties() -> None:
    left = [{"logits": np.array([[1.0], [2.0]], np.float32)}]
    assert not compare(left, [{"logits": np.array([[1.0], [9.0]], np.float32)}]).ok
    assert not compare(left, [{"features": left[0]["logits"]}]).ok


def test_ties_are_told(traced: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = agreement.answers
    calls: list[int] = []

    def with_a_tie(model: ir.Model) -> agreement.Answers:
        found = plain(model)
        if calls:
            found[0] = {name: np.concatenate([value[:1] + 1, value[1:]]) for name, value in found[0].items()}
        calls.append(1)
        return found

    monkeypatch.setattr(rules, "answers", with_a_tie)
    simplified, note = rules.simplify(traced)
    assert note == "after simplification, other tokens leave in 1 of 3 seeded images (near-ties)"
    assert simplified is not traced


def test_a_simplifier_that_fails_or_changes_answers_is_not_used(
    traced: ir.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(change: Callable[[Any], Any]) -> str:
        monkeypatch.setattr("onnxsim.simplify", change)
        kept, note = rules.simplify(traced)
        assert kept is traced
        return note

    broken = ir.to_proto(scaled(traced, [1.0, 2.0, 1.0]))
    assert "failed (division by zero)" in replaced(lambda proto: 1 / 0)
    assert "changed the graph's interface" in replaced(lambda proto: (proto, False))
    assert "changed the outputs" in replaced(lambda proto: (broken, True))


def test_errors_of_our_own_rewriting_surface(traced: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "rewrite", lambda model: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rules.simplify(traced)


def test_large_weights_change_nothing(traced: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that the simplifier sees as inputs give the same graph, with all that is computed from them folded."""
    whole = rules.simplify(traced)[0]
    for module in (files, rules, agreement):
        monkeypatch.setattr(module, "LARGE", 2048)
    parts = rules.simplify(traced)[0]
    assert [node.op_type for node in parts.graph] == [node.op_type for node in whole.graph]
    for left, right in zip(answers(parts), answers(whole), strict=True):
        for name in right:
            np.testing.assert_array_equal(left[name], right[name])


def test_the_graph_given_stays_as_it_was(traced: ir.Model) -> None:
    before = ir.to_proto(traced)
    rules.simplify(traced)
    assert ir.to_proto(traced) == before
    assert "Identity" not in operators(rules.simplify(traced)[0])
