"""Parity on arrays made by hand: what counts as agreement, and which gate fails on what."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gtp_runtime import parity
from gtp_runtime.accuracy import log_softmax
from gtp_runtime.errors import InputError, ManifestError
from gtp_runtime.manifest import QuantizationInfo
from gtp_runtime.parity import NO_TRACE, KeptSets, Parity, compare
from gtp_runtime.precisions import PRECISIONS

LOGITS = np.random.default_rng(0).normal(0, 4, (4, 10)).astype(np.float32)
LAYERS = [np.array([[1, 2]] * 4), np.zeros((4, 0), int), np.array([[3]] * 4)]
GAPS = [np.array([0.5, 0.4, 0.3, 0.2]), np.full(4, np.inf), np.array([0.04, 0.03, 0.02, 0.01])]


TOKENS = 30  # of which 2 leave in the first layer and 1 in the last
SAME = [1, 2, 3]


def kept(rows: Any) -> KeptSets:
    return KeptSets(np.array(rows), LAYERS, GAPS, TOKENS)


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
    agree, _, layers = kept([[2, 1, 3]] * 4).agreement()
    assert agree.all()
    assert [(layer.layer, layer.agreement, layer.flipped_gap) for layer in layers] == [(0, 1.0, None), (2, 1.0, None)]
    assert [layer.smallest_gap for layer in layers] == [0.2, 0.01]


def test_a_token_that_leaves_in_another_layer_is_a_flip_there() -> None:
    agree, _, layers = kept([[1, 2, 3], [1, 8, 3], [1, 2, 9], [3, 1, 2]]).agreement()
    assert agree.tolist() == [True, False, False, False]
    assert [layer.agreement for layer in layers] == [0.5, 0.5]
    assert layers[0].flipped_gap == 0.4, "the largest gap of the images that first flip here"
    assert layers[1].flipped_gap == 0.02, "images that flipped before do not count"


def test_error_is_gated_only_where_kept_sets_agree() -> None:
    flipped = compare(shifted(0.01, 2), LOGITS, kept=kept([[1, 2, 3], [1, 2, 3], [1, 2, 9], [1, 2, 3]]))
    assert flipped.ok, "three of four images are the least that agree in fp32"
    assert flipped.kept_agreement == 0.75
    assert flipped.max_abs_fraction == 0.0
    assert flipped.max_abs_fraction_all == pytest.approx(0.01, rel=1e-3)
    agreeing = compare(shifted(0.01, 2), LOGITS, kept=kept([[1, 2, 3]] * 4))
    assert "logit error 0.01 of max|logit| where kept sets agree, limit 0.001" in only_problem(agreeing)


def test_where_no_set_agrees_in_bf16_the_task_decides() -> None:
    near = kept([[1, 9, 3]] * 4)
    assert compare(shifted(0.002), LOGITS, "bf16", kept=near).ok
    parity = compare(shifted(0.9), LOGITS, "bf16", kept=near)
    assert parity.max_abs_fraction is None
    assert [problem.split()[0] for problem in parity.problems] == ["cosine", "KL", "top-1"]


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 3), ("fp16", 2), ("bf16", 0)])
def test_kept_sets_are_gated_by_precision(precision: str, limit: int) -> None:
    assert PRECISIONS[precision].parity.kept == limit / 4
    for agreeing in range(5):
        parity = compare(LOGITS, LOGITS, precision, kept=kept([SAME] * agreeing + [[1, 9, 3]] * (4 - agreeing)))
        assert parity.ok is (agreeing >= limit)
        assert (parity.kept_agreement, parity.min_kept) == (agreeing / 4, limit / 4)
    altered = compare(LOGITS, LOGITS, kept=kept([[1, 9, 3]] * 4))
    assert only_problem(altered) == "kept sets agree on 0.0% of the images, limit 75%"


def test_min_kept_replaces_the_limit() -> None:
    half = kept([SAME] * 2 + [[1, 9, 3]] * 2)
    assert compare(LOGITS, LOGITS, kept=half, min_kept=0.5).ok
    assert compare(LOGITS, LOGITS, kept=half, min_kept=0).min_kept == 0
    assert "limit 51%" in only_problem(compare(LOGITS, LOGITS, "bf16", kept=half, min_kept=0.51))


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf, "0.5", True])
def test_min_kept_is_a_share(value: Any) -> None:
    with pytest.raises(InputError, match=r"^min_kept="):
        compare(LOGITS, LOGITS, kept=kept([SAME] * 4), min_kept=value)


def test_other_tokens_fail_in_every_precision() -> None:
    parity = compare(LOGITS, LOGITS, "bf16", kept=kept([[7, 8, 9]] * 4))
    assert "different tokens are removed: overlap -0.0" in only_problem(parity)
    assert "(0 is chance), limit 0.5" in only_problem(parity)


def test_overlap_is_corrected_for_chance() -> None:
    everything, left = np.arange(20)[None], [np.arange(10)[None]]
    assert KeptSets(everything[:, :10], left, [np.ones(1)], 20).agreement()[2][0].overlap == 1
    half = np.concatenate([everything[:, :5], everything[:, 10:15]], 1)
    assert KeptSets(half, left, [np.ones(1)], 20).agreement()[2][0].overlap == 0
    assert KeptSets(everything[:, 10:], left, [np.ones(1)], 20).agreement()[2][0].overlap == -1


@pytest.mark.parametrize("propagated", [np.zeros((4, 2), int), np.zeros((3, 3), int), np.zeros(4, int)])
def test_kept_sets_that_do_not_fit_are_refused(propagated: np.ndarray) -> None:
    with pytest.raises(ManifestError):
        KeptSets(propagated, LAYERS, GAPS, TOKENS)


NO_OUTPUT = KeptSets(None, LAYERS, GAPS, TOKENS)
NOTHING_LEAVES = KeptSets(None, [np.zeros((4, 0), int)], [np.full(4, np.inf)], TOKENS)


@pytest.mark.parametrize(
    ("traced", "notes"),
    [(None, []), (NO_OUTPUT, [NO_TRACE]), (NOTHING_LEAVES, []), (replace(NOTHING_LEAVES, propagated=LAYERS[1]), [])],
    ids=["dense", "no trace", "nothing leaves", "nothing leaves, traced"],
)
def test_without_kept_sets_every_image_is_gated(traced: KeptSets | None, notes: list[str]) -> None:
    parity = compare(shifted(0.01, 2), LOGITS, kept=traced)
    assert (parity.kept_agreement, parity.kept_overlap, parity.min_kept) == (None, None, None)
    assert (parity.layers, parity.notes) == ([], notes)
    assert "logit error" in only_problem(parity)
    asked = compare(LOGITS, LOGITS, kept=traced, min_kept=0.5)
    assert only_problem(asked) == "no kept sets to compare, so omit min_kept (--min-kept)"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (np.zeros((0, 10)), np.zeros((0, 10))),
        (np.zeros((4, 0)), np.zeros((4, 0))),
        (np.zeros((4, 10)), np.zeros((4, 9))),
        (np.zeros((1, 10)), np.zeros((4, 10))),
        (np.zeros(10), np.zeros(10)),
    ],
)
def test_nothing_is_proven_by_nothing(answers: np.ndarray, expected: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"equal \(N, classes\)"):
        compare(answers, expected)


def test_an_unknown_precision_has_no_limits() -> None:
    with pytest.raises(InputError, match="'int3': .*fp32, fp16, bf16"):
        compare(LOGITS, LOGITS, "int3")


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-3), ("fp16", 3e-2), ("bf16", 1e-1)])
def test_each_precision_has_its_limit(precision: str, limit: float) -> None:
    expected = np.linspace(-1, 1, 100, dtype=np.float32)[None] * 1e-2  # so flat that only the error gate sees it
    for factor, expectation in ((0.9, True), (1.1, False)):
        logits = expected.copy()
        logits[0, 50] += limit * factor * 1e-2
        assert compare(logits, expected, precision).ok is expectation


def test_cosine_gate() -> None:
    flat = np.full((4, 100), 0.1, np.float32)
    turned = flat * np.where(np.arange(100) < 10, 3, 1)
    assert only_problem(compare(turned, flat, "bf16", kept=kept([[1, 9, 3]] * 4))) == "cosine 0.89443, limit 0.9"


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


def test_json_holds_no_infinite_gap() -> None:
    endless = KeptSets(np.array([SAME] * 4), LAYERS, [np.full(4, np.inf)] * 3, TOKENS)
    found = compare(LOGITS, LOGITS, kept=endless).to_dict()
    assert found["layers"][0]["smallest_gap"] is None
    json.dumps(found, allow_nan=False)


def test_labels_give_accuracy() -> None:
    labels = LOGITS.argmax(1)
    labels[0] = (labels[0] + 1) % 10
    parity = compare(LOGITS, LOGITS, labels=labels, dense=np.eye(10)[labels])
    assert (parity.top1, parity.dense_top1) == (0.75, 1.0)
    assert (compare(LOGITS, LOGITS).top1, compare(LOGITS, LOGITS, labels=labels).dense_top1) == (None, None)


def test_log_softmax_neither_overflows_nor_underflows() -> None:
    values = log_softmax(np.array([[1e4, 0.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(values, [[0.0, -1e4], [-np.log(2)] * 2])


RECEIVERS = [np.array([[5, 6]] * 4), np.zeros((4, 0), int), np.array([[5]] * 4)]


def merged(rows: Any, receivers: Any) -> KeptSets:
    return KeptSets(np.array(rows), LAYERS, GAPS, 8, np.array(receivers), RECEIVERS)


def test_receivers_are_compared_token_by_token() -> None:
    rows = [[1, 2, 3], [2, 1, 3], [1, 2, 3], [1, 7, 3]]
    agree, alike, layers = merged(rows, [[5, 6, 5], [6, 5, 5], [6, 5, 5], [5, 6, 5]]).agreement()
    assert agree.tolist() == [True, True, True, False]
    assert alike.tolist() == [True, True, False, False]
    assert [layer.receivers for layer in layers] == [pytest.approx(2 / 3), 1.0]


def test_error_is_gated_only_where_receivers_agree_too() -> None:
    receivers = [[5, 6, 5], [5, 6, 5], [6, 5, 5], [5, 6, 5]]
    parity = compare(shifted(0.002, 2), LOGITS, kept=merged([[1, 2, 3]] * 4, receivers))
    assert parity.ok
    assert (parity.kept_agreement, parity.receiver_agreement, parity.max_abs_fraction) == (1.0, 0.75, 0.0)


def test_other_receivers_fail() -> None:
    parity = compare(LOGITS, LOGITS, kept=merged([[1, 2, 3]] * 4, [[6, 5, 5]] * 4))
    assert parity.receiver_agreement == 0
    assert "receivers agree on 0.0% of the images whose kept sets do, limit 75%" in only_problem(parity)


def test_receivers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ManifestError, match=r"\(4, 3\) removed .*\(4, 2\) receivers"):
        merged([[1, 2, 3]] * 4, [[5, 6]] * 4)


@pytest.mark.parametrize(
    ("bits", "backend", "info", "saturates", "expected"),
    [
        (8, "onnxruntime", {"provider": "cpu"}, True, True),
        (8, "openvino", {"device": "CPU"}, True, True),
        (8, "openvino", {"device": "GPU"}, True, False),
        (8, "onnxruntime", {"provider": "cuda"}, True, False),
        (8, "litert", {}, True, False),
        (7, "onnxruntime", {"provider": "cpu"}, True, False),
        (8, "onnxruntime", {"provider": "cpu"}, False, False),
        (None, "onnxruntime", {"provider": "cpu"}, True, False),
    ],
)
def test_int8_that_may_saturate_is_named(
    monkeypatch: pytest.MonkeyPatch, bits: int | None, backend: str, info: Any, saturates: bool, expected: bool
) -> None:
    monkeypatch.setattr(parity, "saturates_int8", lambda: saturates)
    quantized = None if bits is None else QuantizationInfo("onnxruntime", "uint8", "minmax", 8, 4, weight_bits=bits)
    assert bool(parity.cautions(quantized, backend, info)) is expected
