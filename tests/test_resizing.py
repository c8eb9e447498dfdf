"""Resizing without antialiasing equals PyTorch's, which is OpenCV's, and is stated in recipes and manifests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts import DIGITS, ONE_OF_EACH, TINY
from PIL import Image
from torch.nn.functional import interpolate

from gtp_exporters import ExportOptions, export
from gtp_exporters.subject import make_subject
from gtp_models.errors import ConfigError
from gtp_runtime import Preprocessing, load, read_manifest
from gtp_runtime.errors import ManifestError, RandomWeightsWarning
from gtp_runtime.images.resizing import METHODS, resize_plain

PLAIN = Preprocessing([24, 24], "squash", [24, 24], "bilinear", [0.5] * 3, [0.5] * 3, [0, 0, 0], antialias=False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("old", [(64, 48), (7, 9), (1, 1), (300, 2), (1200, 900)], ids=str)
@pytest.mark.parametrize("new", [(24, 24), (31, 50), (1, 3)], ids=str)
def test_equals_pytorch(method: str, old: tuple[int, int], new: tuple[int, int]) -> None:
    pixels = np.random.default_rng(sum(old)).integers(0, 256, (*old, 3), dtype=np.uint8)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    exact = interpolate(batch, new, mode=method, align_corners=False, antialias=False)[0].permute(1, 2, 0).numpy()
    ours = resize_plain(pixels, new[::-1], method)
    assert ours.shape == (*new, 3) and ours.dtype == np.uint8
    assert np.abs(ours - exact.clip(0, 255)).max() <= 0.5001, "to rounding"


def test_opencvs_example() -> None:
    """cv2.resize(..., (2, 1)) of eight columns reads columns 1, 2 and 5, 6."""
    row = np.array([0, 10, 20, 90, 0, 100, 200, 7], np.uint8)
    assert resize_plain(row[None, :, None].repeat(3, 2), (2, 1), "bilinear")[0, :, 0].tolist() == [15, 150]


@pytest.mark.parametrize("mode", ["squash", "shortest", "contain", "cover"])
def test_only_the_resize_differs(mode: str) -> None:
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::4] = 255  # which a filter turns grey
    plain = replace(PLAIN, resize_mode=mode, resize=[20, 20])
    assert plain.pixels(stripes).shape == replace(plain, antialias=True).pixels(stripes).shape
    assert plain.pixels(stripes).std() > 1.5 * replace(plain, antialias=True).pixels(stripes).std()
    small = np.full((24, 24, 3), 7, np.uint8)
    assert np.array_equal(replace(plain, resize=[24, 24]).pixels(small), small)


def test_other_methods_have_no_such_form() -> None:
    with pytest.raises(ManifestError, match="lanczos"):
        replace(PLAIN, interpolation="lanczos")
    with pytest.raises(ManifestError, match="antialias"):
        replace(PLAIN, antialias="no")  # type: ignore[arg-type]
    recipe = replace(TINY, preprocessing={"antialias": False, "interpolation": "nearest"})
    with pytest.raises(ConfigError, match="nearest"):
        make_subject(recipe, "random", 0, ExportOptions())
    with pytest.raises(ConfigError, match="antialias"):
        replace(TINY, preprocessing={"antialias": "no"})


@pytest.mark.parametrize("kind", ["float", pytest.param("uint8", marks=pytest.mark.full)])
def test_a_recipe_states_it_and_every_use_follows(tmp_path: Path, kind: str) -> None:
    recipe = replace(TINY, preprocessing={"antialias": False, "interpolation": "bilinear", "crop_pct": 1.0})
    options = ExportOptions(data=DIGITS / "images" / "7", dense=False, simplify=False, input=kind)
    export(recipe, tmp_path / "out", weights="random", options=options, check=False, report=False)
    preprocessing = read_manifest(tmp_path / "out").preprocessing
    assert (preprocessing.antialias, preprocessing.interpolation) == (False, "bilinear")
    with np.load(tmp_path / "out" / "reference.npz") as reference:
        assert all(image.shape == (16, 16, 3) for image in reference["images"])
    with Image.open(ONE_OF_EACH[7]) as image:
        expected = resize_plain(np.asarray(image.convert("RGB")), (16, 16), "bilinear")
    assert np.array_equal(preprocessing.pixels(ONE_OF_EACH[7]), expected)
    with pytest.warns(RandomWeightsWarning):
        model = load(tmp_path / "out", threads=1)
    with model:
        taken = model.preprocess(ONE_OF_EACH[7])
        assert np.array_equal(taken, expected if kind == "uint8" else preprocessing.normalise(expected))
        assert model.validate().ok
