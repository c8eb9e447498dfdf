"""Preprocessing equals timm's evaluation transform, bit for bit, and says clearly what it cannot read."""

import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform, resolve_data_config

from gtp_exporters.data_config import to_preprocessing
from gtp_runtime import Preprocessing
from gtp_runtime.errors import ImageError
from gtp_runtime.preprocessing import open_image

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


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "CMYK"])
def test_other_modes_become_rgb_first(mode: str, tmp_path: Path) -> None:
    image = noise(37, 53).convert(mode)
    image.save(tmp_path / "image.tif")
    assert np.array_equal(PLAIN(image), PLAIN(image.convert("RGB")))
    assert np.array_equal(PLAIN(tmp_path / "image.tif"), PLAIN(image))


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


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "bmp"])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    noise(64, 64).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=f"cannot read the image .*image.{suffix}: "):
        PLAIN(path)
    with pytest.raises(ImageError, match="cannot read the image"), Image.open(path) as picture:
        PLAIN(picture)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError, match=r"cannot identify image file .*text\.png"):
        open_image(tmp_path / "text.png")
    with pytest.raises(ImageError, match=r"^no image .*missing\.png$"):
        open_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="Is a directory"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match="not NoneType"):
        open_image(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((3, 5, 5), np.uint8),
        np.zeros((1, 5, 5, 3), np.uint8),
        np.zeros((5, 5, 3), np.float32),
        np.zeros((0, 5, 3), np.uint8),
    ],
    ids=lambda array: f"{array.shape}-{array.dtype}",
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"must be \(H, W, 3\) uint8 in RGB order, this one is \("):
        PLAIN(array)
