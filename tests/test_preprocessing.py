"""Preprocessing equals timm's evaluation transform, bit for bit, and checks its own values."""

import math
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import TINY
from PIL import Image
from timm.data import create_transform, resolve_data_config

from gtp_exporters import ExportOptions, export
from gtp_exporters.subject import to_preprocessing
from gtp_models.errors import ConfigError
from gtp_runtime import Preprocessing, load, read_manifest
from gtp_runtime.errors import ManifestError, RandomWeightsWarning

OLD = tuple(map(int, version("timm").split(".")[:3])) < (1, 0, 31)
SIZES = [(37, 53), (500, 333), (224, 224), (7, 300), (31, 29)]  # width, height
PLAIN = Preprocessing([16, 16], "squash", [16, 16], "bilinear", [0.5] * 3, [0.5] * 3, [0, 0, 0])


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def assert_equals_timm(**settings: Any) -> None:
    config = resolve_data_config(settings)
    ours, theirs = to_preprocessing(config), create_transform(**config, is_training=False)
    for size in SIZES:
        image = noise(*size)
        assert np.array_equal(ours(image), theirs(image).numpy()), f"{size} with {settings}"


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("input_size", [(3, 64, 64), (3, 48, 81), (3, 75, 32)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop_pct", [0.9, 0.875, 1.0])
def test_equals_timm(crop_mode: str, input_size: tuple[int, ...], interpolation: str, crop_pct: float) -> None:
    if OLD and crop_mode == "center" and interpolation == "bicubic" and input_size[1] != input_size[2]:
        pytest.skip("before 1.0.31 timm resizes these with bilinear, whatever is configured; ours follows what is")
    assert_equals_timm(input_size=input_size, crop_mode=crop_mode, interpolation=interpolation, crop_pct=crop_pct)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_equals_timm_at_full_size_with_other_statistics(crop_mode: str) -> None:
    assert_equals_timm(
        input_size=(3, 224, 224), crop_mode=crop_mode, crop_pct=0.9, mean=(0.48, 0.457, 0.408), std=(0.268, 0.26, 0.27)
    )


def test_paths_images_and_arrays_agree(tmp_path: Path) -> None:
    image, path = noise(53, 37), tmp_path / "image.png"
    image.save(path)
    expected = PLAIN(image)
    assert expected.shape == (3, 16, 16)
    assert expected.dtype == np.float32
    for other in (path, str(path), np.asarray(image)):
        assert np.array_equal(PLAIN(other), expected)


def test_normalise_takes_batches() -> None:
    pixels = np.stack([PLAIN.pixels(noise(20, 30)), PLAIN.pixels(noise(30, 20))])
    assert np.array_equal(PLAIN.normalise(pixels)[1], PLAIN(noise(30, 20)))
    assert math.isclose(PLAIN.normalise(np.full((1, 1, 3), 255, np.uint8))[0, 0, 0], 1.0)


def test_exif_orientation_is_ignored_unless_asked(tmp_path: Path) -> None:
    image, exif = noise(20, 31), Image.Exif()
    exif[0x0112] = 6  # upright after a quarter turn clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(PLAIN(tmp_path / "turned.png"), PLAIN(image))
    upright = image.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(PLAIN(tmp_path / "turned.png", exif=True), PLAIN(upright))
    asked = replace(PLAIN, exif=True)
    assert np.array_equal(asked(tmp_path / "turned.png"), PLAIN(upright))
    assert np.array_equal(asked(tmp_path / "turned.png", exif=False), PLAIN(image))


def test_exif_of_a_recipe_is_kept_in_the_manifest_and_used(tmp_path: Path) -> None:
    recipe = replace(TINY, preprocessing={"exif": True})
    image, exif = noise(20, 31), Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "data").mkdir()
    image.save(tmp_path / "data" / "turned.png", exif=exif)
    options = ExportOptions(simplify=False, dense=False, data=tmp_path / "data")
    export(recipe, tmp_path / "out", weights="random", options=options, check=False, report=False)
    preprocessing = read_manifest(tmp_path / "out").preprocessing
    assert preprocessing.exif
    upright = preprocessing.pixels(image.transpose(Image.Transpose.ROTATE_270))
    with pytest.warns(RandomWeightsWarning):
        model = load(tmp_path / "out", threads=1)
    assert np.array_equal(model.reference().images[0], upright)
    assert np.array_equal(model.preprocess(tmp_path / "data" / "turned.png"), preprocessing.normalise(upright))
    with pytest.raises(ConfigError, match="exif"):
        replace(TINY, preprocessing={"exif": 1})


BAD: dict[str, list[Any]] = {
    "resize": [[16], [16, 0], [16.0, 16], [16, -1], "16", [True, 16], None],
    "resize_mode": ["stretch", "", None, ["squash"]],
    "crop": [[16], [0, 16], [16, math.nan], [16, 16, 3]],
    "interpolation": ["cubic", "BICUBIC", None],
    "mean": [[0.5] * 2, [0.5, 0.5, math.nan], [0.5, 0.5, math.inf], ["0.5"] * 3, 0.5, [10**400, 0, 0]],
    "std": [[0.5, 0.5, 0.0], [0.5, 0.5, -0.5], [0.5, 0.5, math.nan], [math.inf] * 3, [1e-60] * 3, [True] * 3],
    "fill": [[0, 0], [0, 0, 256], [0, 0, -1], [0.5] * 3],
    "color_order": ["BGR", None],
    "exif": [1, "yes", None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_its_values_are_checked(name: str, value: Any) -> None:
    with pytest.raises(ManifestError, match=rf"^preprocessing\.{name} "):
        replace(PLAIN, **{name: value})


def test_whole_numbers_are_numbers() -> None:
    assert replace(PLAIN, mean=[0, 0, 0], std=[1, 1, 1])(noise(20, 20)).max() <= 1
