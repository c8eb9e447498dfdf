"""One logit, and several labels an image: probabilities, agreement and divergence are those of a sigmoid."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifacts import TINY, Command
from PIL import Image
from test_huggingface import saved

from gtp_exporters import ExportOptions, export
from gtp_exporters.measuring.gate import judge
from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.recipes import load_recipe
from gtp_runtime import Model, evaluate, load, read_manifest
from gtp_runtime.accuracy import agree, class_scores, divergence, probabilities
from gtp_runtime.parity import compare
from gtp_runtime.precisions import PRECISIONS
from gtp_runtime.question import question_of

pytestmark = pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")
OPTIONS = ExportOptions(simplify=False, target="onnxruntime")
ONE = np.array([[2.0], [-1.0], [0.5]], np.float32)
MANY = np.random.default_rng(0).normal(0, 3, (6, 4)).astype(np.float32)


def bernoulli(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    p, q = (torch.from_numpy(values).double().sigmoid() for values in (expected, actual))
    return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1).numpy()  # type: ignore[no-any-return]


def test_one_logit_is_two_classes() -> None:
    shares = torch.from_numpy(ONE).sigmoid().numpy()
    assert np.allclose(probabilities(ONE), np.concatenate([1 - shares, shares], 1))
    assert np.allclose(divergence(ONE, -ONE), bernoulli(ONE, -ONE))
    assert agree(ONE, ONE - 1).tolist() == [True, True, False]
    found = class_scores(ONE, -ONE, np.array([1, 0, 0]))
    assert (found["top1"].tolist(), found["agreement"].tolist()) == ([True, True, False], [False] * 3)


def test_several_labels_are_decided_each_by_itself() -> None:
    assert np.allclose(probabilities(MANY, "sigmoid"), torch.from_numpy(MANY).sigmoid().numpy())
    other = MANY + 1
    assert np.allclose(divergence(MANY, other, "sigmoid"), bernoulli(MANY, other))
    assert np.allclose(divergence(MANY, other), 0), "softmax does not see what all logits have in common"
    assert agree(MANY, other).all() and not agree(MANY, other, "sigmoid").all()
    parity = compare(other, MANY, activation="sigmoid")
    assert parity.top1_agreement is not None and parity.top1_agreement < 1
    assert parity.kl is not None and np.isclose(parity.kl, bernoulli(MANY, other).max())


@pytest.mark.parametrize("logits", [ONE.repeat(4, 0), MANY])
def test_the_int8_gate_sees_what_softmax_hides(logits: np.ndarray) -> None:
    limits, twin, question = PRECISIONS["int8"].gate, {"logits": logits}, question_of("logits", "sigmoid")
    assert limits is not None
    assert judge("file", twin, twin, None, "here", [], 4, limits, question).ok
    assert not judge("file", {"logits": logits - 4}, twin, None, "here", [], 4, limits, question).ok


def exported(place: Path, recipe: Any, **changes: Any) -> Model:
    export(replace(recipe, **changes), place, weights="random", options=OPTIONS, report=False)
    return load(place, threads=1)


@pytest.mark.full
def test_one_logit_end_to_end(command: Command, tmp_path: Path) -> None:
    recipe = replace(TINY, model_args=TINY.model_args | {"num_classes": 1})
    model = exported(tmp_path / "out", recipe, labels=["defect"])
    assert (model.manifest.model.activation, model.manifest.labels) == ("sigmoid", ["not defect", "defect"])
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8))
    for name in ("0", "1"):
        (tmp_path / "data" / name).mkdir(parents=True)
        image.save(tmp_path / "data" / name / "1.png")
    answers = model.predict(image, allow_random=True)
    share = torch.from_numpy(model.run(model.preprocess(image)[None])).sigmoid().item()
    assert {entry.label: round(entry.probability, 6) for entry in answers} == {
        "defect": round(share, 6),
        "not defect": round(1 - share, 6),
    }
    assert model.validate().ok
    accuracy = evaluate(model, model, tmp_path / "data")
    assert (accuracy.images, accuracy.top1, accuracy.agreement, accuracy.divergence) == (2, 0.5, 1, 0)
    with pytest.raises(ConfigError, match="one logit"):
        exported(tmp_path / "no", recipe, activation="softmax")


def test_several_labels_end_to_end(command: Command, tmp_path: Path) -> None:
    model = exported(tmp_path / "out", TINY, activation="sigmoid")
    assert read_manifest(tmp_path / "out").model.activation == "sigmoid"
    image = np.full((20, 20, 3), 99, np.uint8)
    expected = torch.from_numpy(model.run(model.preprocess(image)[None])).sigmoid().numpy()[0]
    answers = model.predict(image, allow_random=True)
    assert np.allclose([entry.probability for entry in answers], np.sort(expected)[::-1])
    with pytest.raises(ConfigError, match="activation"):
        exported(tmp_path / "no", TINY, activation="sigmoid", model_args=TINY.model_args | {"num_classes": 0})
    ran = command("export", "digits", "--activation", "relu")
    assert ran.code == 2 and "--activation" in ran.err


def test_the_configuration_says_it(tmp_path: Path) -> None:
    saved(tmp_path / "vit", "ViT")
    config = json.loads((tmp_path / "vit" / "config.json").read_text("utf-8"))
    for kind, activation in (("multi_label_classification", "sigmoid"), ("single_label_classification", "softmax")):
        (tmp_path / "vit" / "config.json").write_text(json.dumps(config | {"problem_type": kind}), "utf-8")
        assert load_recipe(str(tmp_path / "vit")).activation == activation
    (tmp_path / "vit" / "config.json").write_text(json.dumps(config | {"problem_type": "regression"}), "utf-8")
    with pytest.raises(UnsupportedModelError, match="problem_type"):
        load_recipe(str(tmp_path / "vit"))
