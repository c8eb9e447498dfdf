"""Accuracy on arrays made by hand: shares, the divergence from dense, and standard errors."""

import json

import numpy as np
import pytest

from gtp_runtime.accuracy import Accuracy, Scores, Tally, standard_error
from gtp_runtime.question import Question, score

ONE, OTHER = [3.0, 0.0, 0.0, 0.0, 0.0, -9.0], [0.0, 3.0, 0.0, 0.0, 0.0, -9.0]
LABELS = np.zeros(4, int)
DENSE = np.array([ONE, ONE, ONE, OTHER])
LOGITS = np.array([ONE, ONE, OTHER, ONE])


def measure(logits: np.ndarray, dense: np.ndarray | None, classes: np.ndarray | None) -> Accuracy:
    """Return accuracy from (N, classes) logits of a file and of its dense baseline, and from (N,) classes."""
    tally = Tally()
    tally.add(scored(logits, dense, classes), len(logits))
    return tally.accuracy()


def scored(logits: np.ndarray, dense: np.ndarray | None, classes: np.ndarray | None) -> Scores:
    """Return scores from (N, classes) logits of a file and of its dense baseline, and from (N,) classes."""
    return score({"logits": logits}, None if dense is None else {"logits": dense}, classes, Question())


def test_without_classes_and_twin_nothing_is_known() -> None:
    found = measure(LOGITS, None, None)
    known = {"images": 4, "unreadable": 0, "unreadable_images": [], "measures": {}}
    known |= dict.fromkeys(("quality", "metric", "unit"), "") | dict.fromkeys(("divergence", "divergence_se"))
    assert found.to_dict() == dict.fromkeys(vars(found)) | known


def test_shares_and_their_errors() -> None:
    found = measure(LOGITS, None, LABELS)
    assert (found.top1, found.top5) == (0.75, 1.0)
    assert found.top1_se == pytest.approx(np.sqrt(0.75 * 0.25 / 3))
    assert (found.dense_top1, found.agreement, found.divergence, found.top1_drop) == (None,) * 4
    assert measure(LOGITS, None, np.full(4, 5)).top5 == 0


def test_the_drop_is_paired() -> None:
    found = measure(LOGITS, DENSE, LABELS)
    assert (found.dense_top1, found.top1_drop, found.agreement) == (0.75, 0.0, 0.5)
    assert found.top1_drop_se == pytest.approx(np.std([0, 0, 1, -1], ddof=1) / 2)
    same = measure(DENSE, DENSE, LABELS)
    assert (same.top1_drop, same.top1_drop_se, same.divergence, same.divergence_se) == (0, 0, 0, 0)


def test_divergence_is_of_dense_to_the_model_in_nats() -> None:
    dense, model = np.log([[0.5, 0.5], [0.9, 0.1]]), np.log([[0.25, 0.75], [0.9, 0.1]])
    first = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    found = measure(model, dense, None)
    assert found.divergence == pytest.approx(first / 2)
    assert found.divergence_se == pytest.approx(first / 2)
    assert found.divergence != pytest.approx(measure(dense, model, None).divergence), "it has a direction"


def test_one_image_has_no_standard_error() -> None:
    found = measure(LOGITS[:1], DENSE[:1], LABELS[:1])
    assert (found.top1, found.top1_se, found.top1_drop_se, found.divergence_se) == (1.0, None, None, None)
    json.dumps(found.to_dict(), allow_nan=False)


def test_standard_error_of_the_mean() -> None:
    assert standard_error(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(1.2909944 / 2)
    assert standard_error(np.array([True, False])) == pytest.approx(0.5)
    assert standard_error(np.array([1.0])) is None
