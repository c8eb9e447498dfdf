"""Every Pillow mode: the same picture gives the same pixels, or is refused; and what is no picture is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import SEVEN
from PIL import Image

from gtp_runtime import Model, Preprocessing
from gtp_runtime.errors import ImageError
from gtp_runtime.images.decoding import open_image

PLAIN = Preprocessing([16, 16], "squash", [16, 16], "bilinear", [0.5] * 3, [0.5] * 3, [0, 0, 0])
GREY = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (37, 53, 3), dtype=np.uint8)


def sixteen(grey: np.ndarray, mode: str = "I;16") -> Image.Image:
    """The 16-bit twin of an 8-bit grey picture."""
    big = mode == "I;16B" or (mode == "I;16N" and np.dtype("=u2") != np.dtype("<u2"))
    values = (grey.astype(np.uint16) * 257).astype(">u2" if big else "<u2")
    return Image.frombytes(mode, grey.shape[::-1], values.tobytes())


def in_mode(grey: np.ndarray, mode: str) -> Image.Image:
    """The same grey picture in a mode."""
    picture = Image.fromarray(grey)
    if mode.startswith("I;16"):
        return sixteen(grey, mode)
    for step in {"La": ("LA",), "RGBa": ("RGBA",), "HSV": ("RGB",), "LAB": ("RGB",)}.get(mode, ()):
        picture = picture.convert(step)
    return picture.convert(mode)


@pytest.mark.parametrize("mode", sorted(Image.MODES))
def test_every_mode_is_predicted_alike(mode: str, model: Model) -> None:
    with Image.open(SEVEN) as picture:
        grey = np.asarray(picture.convert("L"))
    grey = np.where(grey > 127, np.uint8(255), np.uint8(0)) if mode == "1" else grey  # one bit holds no more
    expected = model.predict(Image.fromarray(grey))
    found = model.predict(in_mode(grey, mode))
    assert found[0].label == expected[0].label
    if mode != "LAB":  # which rounds a grey by 1
        assert found == expected
    assert found[0].probability == pytest.approx(expected[0].probability, abs=0.01)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N"])
def test_every_value_of_16_bits_is_rounded(mode: str) -> None:
    ramp = np.arange(65536, dtype=">u2" if mode == "I;16B" else "<u2").reshape(256, 256)
    pixels = np.asarray(open_image(Image.frombytes(mode, (256, 256), ramp.tobytes())))
    assert np.array_equal(pixels[..., 0], np.rint(ramp / 257))
    assert (pixels[0, 0] == 0).all() and (pixels[-1, -1] == 255).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jp2"])
def test_16_bit_files_are_scaled(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    sixteen(GREY).save(path)
    assert np.array_equal(np.asarray(open_image(path))[..., 0], GREY)
    assert np.array_equal(PLAIN(path), PLAIN(Image.fromarray(GREY)))


def test_a_16_bit_png_as_older_pillows_open_it(tmp_path: Path) -> None:
    picture = Image.fromarray(GREY.astype(np.int32) * 257)
    picture.format = "PNG"
    assert picture.mode == "I"
    assert np.array_equal(np.asarray(open_image(picture))[..., 0], GREY)


def tiff(values: np.ndarray, **tags: Any) -> Image.Image:
    picture = Image.frombytes("I;16", values.shape[::-1], values.astype("<u2").tobytes())
    picture.tag_v2 = {258: (16,), 262: 1} | {int(name[1:]): value for name, value in tags.items()}  # type: ignore[attr-defined]
    return picture


def test_a_tiff_says_its_bits_and_what_is_white() -> None:
    twelve = np.rint(GREY * (4095 / 255))
    assert np.array_equal(np.asarray(open_image(tiff(twelve, _258=(12,))))[..., 0], GREY)
    with pytest.raises(ImageError, match="16-bit TIFF.*invert"):
        open_image(tiff(GREY, _262=0))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_unscaled_whole_and_float_pictures_are_read_as_8_bit(mode: str, tmp_path: Path) -> None:
    picture = Image.fromarray(GREY).convert(mode)
    picture.save(tmp_path / "image.tif")
    for image in (picture, tmp_path / "image.tif"):
        assert np.array_equal(np.asarray(open_image(image))[..., 0], GREY)
    black = Image.new(mode, (3, 3))
    assert not np.asarray(open_image(black)).any()


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (GREY.astype(np.int32) * 257, "mode I does not .* are 0 to 65535"),
        (GREY.astype(np.int32) - 1, "mode I does not .* are -1 to 254"),
        (GREY.astype(np.float32) / 255, "mode F does not .* are 0 to 1"),
        (GREY.astype(np.float32) * 2, "mode F does not .* are 0 to 510"),
        (np.where(GREY == 7, np.nan, GREY).astype(np.float32), "mode F does not .* are nan to nan"),
        (np.where(GREY == 7, np.inf, GREY).astype(np.float32), "mode F does not .* are 0 to inf"),
    ],
)
def test_an_unknown_range_is_refused(values: np.ndarray, found: str, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "image.tif")
    with pytest.raises(ImageError, match=rf"image\.tif: .*{found}"):
        open_image(tmp_path / "image.tif")


def with_alpha(mode: str) -> Image.Image:
    picture = Image.fromarray(COLOUR if mode.startswith("RGB") else GREY).convert(mode[:-1] + "A")
    picture.putalpha(Image.fromarray(255 - GREY // 2))
    return picture.convert(mode)


@pytest.mark.parametrize(("mode", "off"), [("RGBA", 0), ("LA", 0), ("PA", 0), ("RGBa", 1), ("La", 1)])
def test_alpha_is_dropped(mode: str, off: int) -> None:
    expected = COLOUR if mode.startswith("RGB") else np.stack([GREY] * 3, -1)
    assert np.abs(np.asarray(open_image(with_alpha(mode))).astype(int) - expected).max() <= off


@pytest.mark.parametrize("alpha", [bytes(range(0, 160, 10)), 3], ids=["bytes", "index"])
def test_a_palette_with_transparency_keeps_its_colours(alpha: Any, tmp_path: Path) -> None:
    palette = Image.fromarray(COLOUR).quantize(16)
    palette.save(tmp_path / "image.png", transparency=alpha)
    with Image.open(tmp_path / "image.png") as picture:
        assert (picture.mode, picture.info["transparency"]) == ("P", alpha)
    assert np.array_equal(np.asarray(open_image(tmp_path / "image.png")), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("transparency", [(1, 2, 3), 7], ids=["RGB", "L"])
def test_a_transparent_colour_is_dropped(transparency: Any, tmp_path: Path) -> None:
    values = GREY if transparency == 7 else COLOUR
    Image.fromarray(values).save(tmp_path / "image.png", transparency=transparency)
    pixels = np.asarray(open_image(tmp_path / "image.png"))
    assert np.array_equal(pixels, np.stack([GREY] * 3, -1) if transparency == 7 else COLOUR)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "CMYK"])
def test_other_modes_are_what_pillow_converts(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).convert(mode)
    image.save(tmp_path / "image.tif")
    assert np.array_equal(PLAIN(image), PLAIN(image.convert("RGB")))
    assert np.array_equal(PLAIN(tmp_path / "image.tif"), PLAIN(image))


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_a_picture_without_pixels(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError):
        PLAIN(Image.new("RGB", size))


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "bmp"])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(COLOUR).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"image\.{suffix}: "):
        PLAIN(path)
    with pytest.raises(ImageError), Image.open(path) as picture:
        PLAIN(picture)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    with pytest.raises(ImageError, match=r"text\.png"):
        open_image(tmp_path / "text.png")
    with pytest.raises(ImageError, match=r"missing\.png$"):
        open_image(tmp_path / "missing.png")
    with pytest.raises(ImageError):
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
    with pytest.raises(ImageError, match=r"\(H, W, 3\) uint8"):
        PLAIN(array)
