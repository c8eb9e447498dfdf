"""The runtime as an application embeds it: load, predict and run."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import ONE_OF_EACH, SEVEN
from PIL import Image

import gtp_runtime
from gtp_runtime import Model, Prediction, read_manifest
from gtp_runtime.errors import (
    GTPRuntimeError,
    ImageError,
    InputError,
    ManifestError,
    RandomWeightsError,
)
from gtp_runtime.manifest import write_manifest


def test_a_directory_means_its_model(digits: Path) -> None:
    for path in (digits, str(digits), digits / "model.onnx"):
        with gtp_runtime.load(path, "onnxruntime", threads=1) as loaded:
            assert (loaded.path, loaded.entry.role, loaded.batch) == (digits / "model.onnx", "model", 1)
    with gtp_runtime.load(digits / "dense.onnx") as loaded:
        assert loaded.entry.role == "dense"


def test_predicts_paths_images_arrays_and_lists(model: Model) -> None:
    answer = model.predict(SEVEN, topk=3)
    assert answer[0] == Prediction("7", 7, answer[0].probability)
    assert answer[0].probability > 0.8
    assert [entry.probability for entry in answer] == sorted((entry.probability for entry in answer), reverse=True)
    with Image.open(SEVEN) as picture:
        pixels = np.asarray(picture.convert("RGB"))
        assert model.predict([str(SEVEN), picture, pixels], topk=3) == [answer] * 3
    assert model.predict([]) == []


def test_predicts_each_digit(model: Model) -> None:
    answers = model.predict(ONE_OF_EACH, topk=1)
    assert [answer.label for (answer,) in answers] == [str(digit) for digit in range(10)]


def test_topk(model: Model) -> None:
    assert [len(model.predict(SEVEN, topk=topk)) for topk in (1, 5, 100)] == [1, 5, 10]
    assert sum(entry.probability for entry in model.predict(SEVEN, topk=10)) == pytest.approx(1)


@pytest.mark.parametrize("topk", [0, -1, 1.0, 1.5, "5", True, None, np.nan])
def test_a_topk_that_is_none_is_refused(model: Model, topk: Any) -> None:
    with pytest.raises(InputError, match=r"^topk="):
        model.predict(SEVEN, topk=topk)


def test_a_topk_of_numpy_is_a_number(model: Model) -> None:
    assert len(model.predict(SEVEN, topk=np.int64(2))) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("image", [None, 7, {SEVEN}, 0.5])
def test_what_is_no_image_is_named(model: Model, image: Any) -> None:
    with pytest.raises(ImageError):
        model.predict(image)
    with pytest.raises(ImageError):
        model.predict([SEVEN, image])


@pytest.mark.parametrize("images", [np.zeros((0, 3, 32, 32), np.float32), [], np.float32(1)])
def test_nothing_to_run_is_refused(model: Model, images: Any) -> None:
    with pytest.raises(InputError):
        model.run_all(images)


def test_without_labels_numbers_are_the_labels(batched: Model) -> None:
    assert batched.manifest.labels is None
    assert all(entry.label == str(entry.index) for entry in batched.predict(SEVEN, allow_random=True))


def test_an_image_that_cannot_be_read_is_named(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.png"):
        model.predict([SEVEN, tmp_path / "missing.png"])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_any_number_of_images_fills_batches(batched: Model, count: int) -> None:
    answers = batched.predict(ONE_OF_EACH[:count], allow_random=True)
    assert len(answers) == count
    alone = [batched.predict(image, allow_random=True) for image in ONE_OF_EACH[:count]]
    for one, other in zip(answers, alone, strict=True):
        assert [entry.index for entry in one] == [entry.index for entry in other]
    told: list[tuple[str, float | None]] = []
    pixels = np.stack([batched.preprocess(image) for image in ONE_OF_EACH[:count]])
    outputs = batched.run_all(pixels, lambda task, share=None: told.append((task, share)))
    assert {name: value.shape for name, value in outputs.items()} == {"logits": (count, 5), "propagated": (count, 6)}
    assert told[-1] == ("running images", 1.0)
    np.testing.assert_allclose(outputs["logits"], batched.logits(pixels, ONE_OF_EACH[:count]))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3, 32, 32), np.float32),
        np.zeros((3, 32, 32), np.float32),
        np.zeros((1, 3, 32, 31), np.float32),
        np.zeros((1, 3, 32, 32), np.float64),
        np.zeros((1, 3, 32, 32), np.uint8),
        [0.5],
    ],
    ids=lambda images: f"{np.shape(images)}-{np.asarray(images).dtype}",
)
def test_run_refuses_other_shapes_and_types(model: Model, images: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"model\.onnx .*\(1, 3, 32, 32\) float32"):
        model.run(images)


def test_several_threads_run_at_once(model: Model) -> None:
    inputs = [model.preprocess(image)[None] for image in ONE_OF_EACH]
    expected = [model.run(images) for images in inputs]
    found: list[list[np.ndarray]] = [[] for _ in range(4)]
    workers = [
        threading.Thread(target=lambda into: into.extend(model.run(images) for images in inputs * 5), args=(into,))
        for into in found
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(results, expected * 5) for results in found)


def test_random_weights_are_marked_and_answer_only_if_allowed(batched: Model) -> None:
    with pytest.raises(RandomWeightsError, match=r"tiny .*--weights FILE"):
        batched.predict(SEVEN)
    assert len(batched.predict(SEVEN, allow_random=True)) == 5
    assert batched.validate().ok


def test_what_is_no_model_is_not_loaded(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"other\.onnx: .*gtp-export export"):
        gtp_runtime.load(digits / "other.onnx")
    shutil.copy(digits / "model.onnx", tmp_path)
    with pytest.raises(ManifestError):
        gtp_runtime.load(tmp_path / "model.onnx")


def test_a_file_that_was_altered_is_refused(digits_copy: Path) -> None:
    with (digits_copy / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ManifestError, match="sha256 differs"):
        gtp_runtime.load(digits_copy)
    (digits_copy / "reference.npz").write_bytes(b"")
    with gtp_runtime.load(digits_copy / "dense.onnx") as dense, pytest.raises(ManifestError, match="reference.npz"):
        dense.validate()


def test_closes(digits: Path) -> None:
    with gtp_runtime.load(digits) as loaded:
        images = loaded.sample()
    loaded.close()
    with pytest.raises(GTPRuntimeError, match="was closed"):
        loaded.run(images)


def test_labels_come_from_the_manifest(digits_copy: Path) -> None:
    write_manifest(replace(read_manifest(digits_copy), labels=list("abcdefghij")), digits_copy)
    with gtp_runtime.load(digits_copy) as loaded:
        assert loaded.predict(SEVEN)[0].label == "h"
