from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import Script
from sklearn.datasets import load_digits
from torch import Tensor

from gtp_exporters.subject import preprocessing_of
from gtp_models.methods.apply import apply
from gtp_models.plan import make_plan
from gtp_models.recipes import load_recipe
from gtp_models.weights import BuiltModel, build_model
from gtp_runtime.images.class_folders import KnownClasses, classes_of_folders
from gtp_runtime.images.folders import find_images, image_names

RECIPE = load_recipe("digits")
PATHS = find_images(RECIPE.images)


@pytest.fixture
def train_digits(script: Script) -> Any:
    return script("train_digits")


@pytest.fixture
def built() -> BuiltModel:
    return build_model(RECIPE)


@pytest.fixture(scope="module")
def held_out() -> tuple[Tensor, Tensor]:
    preprocessing = preprocessing_of(build_model(RECIPE).model)
    names = image_names(RECIPE.images)
    labels = classes_of_folders(RECIPE.images, names, KnownClasses(RECIPE.labels, None, 10)).of(names)
    return torch.from_numpy(np.stack([preprocessing(path) for path in PATHS])), torch.tensor(labels)


def test_shipped_weights_are_small_and_pretrained(built: BuiltModel) -> None:
    assert RECIPE.weights.stat().st_size < 3e6
    assert (built.source, built.detail, built.notes) == ("pretrained", "weights.safetensors", ())


def test_accuracy_with_and_without_gtp(train_digits: Any, built: BuiltModel, held_out: tuple[Tensor, Tensor]) -> None:
    assert len(PATHS) == 360
    dense = train_digits.accuracy(built.model, *held_out)
    assert dense >= 0.98
    assert train_digits.accuracy(apply(built.model, RECIPE.settings()), *held_out) >= dense - 0.01


def test_gtp_saves_a_quarter(built: BuiltModel) -> None:
    expected = make_plan(built.model, RECIPE.settings())
    assert expected.total <= 0.75 * expected.dense


def test_the_runtime_prepares_images_as_the_training_did(train_digits: Any, held_out: tuple[Tensor, Tensor]) -> None:
    pixels = np.stack([np.asarray(Image.open(path)) for path in PATHS])
    torch.testing.assert_close(held_out[0], train_digits.to_tensor(pixels), rtol=0, atol=1e-6)


def test_split_holds_out_the_shipped_images(train_digits: Any) -> None:
    train_images, test_images, train_labels, test_labels = train_digits.split()
    assert (len(train_images), len(train_labels)) == (1437, 1437)
    shipped = {(path.parent.name, np.asarray(Image.open(path)).tobytes()) for path in PATHS}
    assert shipped == {(str(label), image.tobytes()) for image, label in zip(test_images, test_labels, strict=True)}
    everything = [image.tobytes() for image in train_digits.images_of(load_digits().images)]
    assert sorted(image.tobytes() for image in (*train_images, *test_images)) == sorted(everything)


def test_augmentation_is_seeded_and_moves_every_image(train_digits: Any) -> None:
    images = train_digits.to_tensor(train_digits.images_of(load_digits().images[:8]))

    def augmented(seed: int) -> Tensor:
        return train_digits.augment(images, torch.Generator().manual_seed(seed))

    assert torch.equal(augmented(1), augmented(1))
    assert not torch.equal(augmented(1), augmented(2))
    assert augmented(1).shape == images.shape
    assert ((augmented(1) - images).abs().amax((1, 2, 3)) > 0.5).all()
