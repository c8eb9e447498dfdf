"""Parity on arrays made by hand: what counts as agreement, and which gate fails on what."""

import json
from typing import Any

import numpy as np
import pytest

from gtp_runtime.parity import KeptSets, Parity, compare, log_softmax

LOGITS = np.random.default_rng(0).normal(0, 4, (4, 10)).astype(np.float32)
LAYERS = [np.array([[1, 2]] * 4), np.zeros((4, 0), int), np.array([[3]] * 4)]
GAPS = [np.array([0.5, 0.4, 0.3, 0.2]), np.full(4, np.inf), np.array([0.04, 0.03, 0.02, 0.01])]


def kept(rows: Any) -> KeptSets:
    return KeptSets(np.array(rows), LAYERS, GAPS)


def shifted(by: float, images: Any = slice(None)) -> np.ndarray:
    """Move one logit of some images by a fraction of max|logit|."""
    logits = LOGITS.copy()
    logits[images, 0] += by * np.abs(LOGITS).max()
    return logits


def only_problem(parity: Parity) -> str:
    (problem,) = parity.problems
    assert not parity.ok
    return problem


def test_equal_answers_agree() -> None:
    parity = compare(LOGITS, LOGITS, kept=kept([[1, 2, 3]] * 4))
    assert parity.ok
    assert (parity.images, parity.top1_agreement, parity.kept_agreement) == (4, 1.0, 1.0)
    assert (parity.max_abs_fraction, parity.max_abs_fraction_all, parity.kl) == (0.0, 0.0, 0.0)
    assert parity.cosine == pytest.approx(1)
    assert parity.to_dict() | {"layers": []} == {"ok": True, **vars(parity), "layers": []}


def test_order_within_a_layer_is_irrelevant() -> None:
    agree, layers = kept([[2, 1, 3]] * 4).agreement()
    assert agree.all()
    assert [(layer.layer, layer.agreement, layer.flipped_gap) for layer in layers] == [(0, 1.0, None), (2, 1.0, None)]
    assert [layer.smallest_gap for layer in layers] == [0.2, 0.01]


def test_a_token_that_leaves_in_another_layer_is_a_flip_there() -> None:
    agree, layers = kept([[1, 2, 3], [1, 8, 3], [1, 2, 9], [3, 1, 2]]).agreement()
    assert agree.tolist() == [True, False, False, False]
    assert [layer.agreement for layer in layers] == [0.5, 0.5]
    assert layers[0].flipped_gap == 0.4, "the largest gap of the images that first flip here"
    assert layers[1].flipped_gap == 0.02, "images that flipped before do not count"


def test_error_is_gated_only_where_kept_sets_agree() -> None:
    flipped = compare(shifted(0.01, 2), LOGITS, kept=kept([[1, 2, 3], [1, 2, 3], [1, 2, 9], [1, 2, 3]]))
    assert flipped.ok
    assert flipped.kept_agreement == 0.75
    assert flipped.max_abs_fraction == 0.0
    assert flipped.max_abs_fraction_all == pytest.approx(0.01, rel=1e-3)
    agreeing = compare(shifted(0.01, 2), LOGITS, kept=kept([[1, 2, 3]] * 4))
    assert "logit error 0.01 of max|logit| where kept sets agree, limit 0.001" in only_problem(agreeing)


def test_where_no_set_agrees_the_task_decides() -> None:
    rows = [[1, 2, 9]] * 4
    assert compare(shifted(0.002), LOGITS, kept=kept(rows)).ok
    parity = compare(shifted(0.2), LOGITS, kept=kept(rows))
    assert parity.max_abs_fraction is None
    assert [problem.split()[0] for problem in parity.problems] == ["cosine", "KL"]


@pytest.mark.parametrize("traced", [None, KeptSets(None, LAYERS, GAPS)], ids=["dense", "no-trace"])
def test_without_a_trace_every_image_is_gated(traced: KeptSets | None) -> None:
    parity = compare(shifted(0.01, 2), LOGITS, kept=traced)
    assert parity.kept_agreement is None
    assert parity.layers == []
    assert "logit error" in only_problem(parity)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-3), ("fp16", 3e-2), ("bf16", 1e-1)])
def test_each_precision_has_its_limit(precision: str, limit: float) -> None:
    expected = np.linspace(-1, 1, 100, dtype=np.float32)[None] * 1e-2  # so flat that only the error gate sees it
    for factor, expectation in ((0.9, True), (1.1, False)):
        logits = expected.copy()
        logits[0, 50] += limit * factor * 1e-2
        assert compare(logits, expected, precision).ok is expectation


def test_cosine_gate() -> None:
    flat = np.full((4, 100), 0.1, np.float32)
    turned = flat * np.where(np.arange(100) < 5, 1.5, 1)
    assert only_problem(compare(turned, flat, kept=kept([[1, 2, 9]] * 4))) == "cosine 0.99440, limit 0.999"


def test_kl_gate() -> None:
    expected = np.array([[30.0, 30.0, 0.0]])
    parity = compare(expected + [[0.4, 0, 0]], expected, "fp16")
    assert only_problem(parity) == "KL divergence 0.0199 nats, limit 0.01"


def test_top1_gate() -> None:
    expected = np.array([[1.0, 1.0001, -1.0]])
    parity = compare(expected + [[0.0005, 0, 0]], expected)
    assert only_problem(parity) == "top-1 agreement 0.0%, limit 99%"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answers_that_are_no_numbers_fail(value: float) -> None:
    logits = LOGITS.copy()
    logits[1, 3] = value
    parity = compare(logits, LOGITS)
    assert not parity.ok
    assert parity.problems[0] == "some logits are not finite"
    json.dumps(parity.to_dict(), allow_nan=False)


def test_labels_give_accuracy() -> None:
    labels = LOGITS.argmax(1)
    labels[0] = (labels[0] + 1) % 10
    parity = compare(LOGITS, LOGITS, labels=labels, dense=np.eye(10)[labels])
    assert (parity.top1, parity.dense_top1) == (0.75, 1.0)
    assert (compare(LOGITS, LOGITS).top1, compare(LOGITS, LOGITS, labels=labels).dense_top1) == (None, None)


def test_log_softmax_neither_overflows_nor_underflows() -> None:
    values = log_softmax(np.array([[1e4, 0.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(values, [[0.0, -1e4], [-np.log(2)] * 2])
