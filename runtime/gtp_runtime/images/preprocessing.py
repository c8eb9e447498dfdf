"""From an image to the model's input, as timm's evaluation transform does it, with Pillow and numpy only."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from gtp_runtime.errors import ImageError, ManifestError
from gtp_runtime.images.decoding import LARGEST, ImageLike, open_image
from gtp_runtime.images.resizing import METHODS, resize_plain

RESIZE_MODES = ("shortest", "cover", "contain", "squash")
INTERPOLATIONS = tuple(method.name.lower() for method in Image.Resampling)
MAX_SIDE = 4096  # pixels of the crop and of what it is cut from; no ViT takes as many
FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of an image, for any programming language; sizes are [height, width] in pixels.

    1. decode to 8-bit RGB (``gtp_runtime.images.decoding`` describes every image mode), turned as its camera says if
    ``exif``; 2. resize to ``resize`` according to ``resize_mode``, with ``interpolation``, antialiased as in Pillow
    unless ``antialias`` is false; 3. pad with ``fill`` if the image is smaller than ``crop``, and take a centre crop;
    4. ``(value / 255 - mean) / std`` for each channel, as float32 in (channel, row, column) order.

    Attributes:
        resize: the target size of the resize.
        resize_mode: "shortest" (the shorter side reaches resize[0]), "cover" (no side falls short),
            "contain" (no side exceeds), "squash" (both sides reach it, whatever the aspect).
        crop: size of the model's input.
        interpolation: "bicubic", "bilinear", "nearest", "lanczos", "box" or "hamming".
        mean, std: three numbers for values in 0..1.
        fill: RGB colour 0..255 around an image that is smaller than the crop.
        color_order: always "RGB".
        exif: whether images are turned by their EXIF orientation, which timm's evaluation ignores.
        antialias: whether the filter of the resize widens as images shrink, as timm's, torchvision's and Pillow's do.
            False is OpenCV's ``cv2.resize`` (``gtp_runtime.images.resizing``), bilinear or bicubic.

    Raises:
        ManifestError: an invalid value: a mean that is not finite, a std of 0, an unknown name.
    """

    resize: list[int]
    resize_mode: str
    crop: list[int]
    interpolation: str
    mean: list[float]
    std: list[float]
    fill: list[int]
    color_order: str = "RGB"
    exif: bool = False
    antialias: bool = True

    def __post_init__(self) -> None:
        _check(asdict(self))

    def __call__(self, image: ImageLike, *, exif: bool | None = None) -> np.ndarray:
        """Return the input (3, H, W) float32 of one image; ``exif`` replaces the setting of this name."""
        return self.normalise(self.pixels(image, exif=exif))

    def pixels(self, image: ImageLike, *, exif: bool | None = None) -> np.ndarray:
        """Return the (H, W, 3) uint8 pixels that the model sees; ``exif`` replaces the setting of this name.

        The whole image is resized, then cut. To resize only the part that the crop needs (Pillow's ``box``, which is
        float32) would be cheaper, and gives other values than timm's transform does: in 191 of 200 images of noise.
        What resizing may take is bounded instead.

        Raises:
            ImageError: an image that cannot be read, or is too long and thin to be resized so.
        """
        picture = open_image(image, exif=self.exif if exif is None else exif)
        size = self._resized(picture.width, picture.height)
        _check_work(picture.size, size)
        return self._cropped(self._resize(picture, size), self.fill)

    def aligned(self, values: np.ndarray, missing: float) -> np.ndarray:
        """Return (H, W) float32 numbers that lie over the pixels that the model sees: of each pixel the nearest.

        Args:
            values: (rows, columns) numbers of an image: classes or depths.
            missing: what stands around an image that is smaller than the crop.

        Raises:
            ImageError: as ``pixels``.
        """
        picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
        size = self._resized(picture.width, picture.height)
        _check_work(picture.size, size)
        nearest = np.asarray(picture.resize(size, Image.Resampling.NEAREST))
        return np.asarray(self._cropped(nearest[..., None], missing)[..., 0])

    def _resize(self, picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
        if size == picture.size:
            return np.asarray(picture)
        if not self.antialias:
            return resize_plain(np.asarray(picture), size, self.interpolation)
        return np.asarray(picture.resize(size, Image.Resampling[self.interpolation.upper()]))

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Turn (..., H, W, 3) uint8 pixels into (..., 3, H, W) float32."""
        values = np.moveaxis(pixels, -1, -3).astype(np.float32) / np.float32(255)
        mean, std = (np.asarray(entry, np.float32)[:, None, None] for entry in (self.mean, self.std))
        return np.ascontiguousarray((values - mean) / std)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.resize_mode == "squash":
            return self.resize[1], self.resize[0]
        if self.resize_mode == "shortest":  # torchvision truncates the longer side
            short, long = self.resize[0], int(self.resize[0] * max(width, height) / min(width, height))
            return (short, long) if width <= height else (long, short)
        ratios = height / self.resize[0], width / self.resize[1]
        ratio = max(ratios) if self.resize_mode == "contain" else min(ratios)  # timm rounds both
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def _cropped(self, pixels: np.ndarray, fill: "list[int] | float") -> np.ndarray:
        height, width = self.crop
        if pixels.shape[0] < height or pixels.shape[1] < width:
            pixels = self._padded(pixels, fill)
        top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
        return pixels[top : top + height, left : left + width]

    def _padded(self, pixels: np.ndarray, fill: "list[int] | float") -> np.ndarray:
        height, width = pixels.shape[:2]
        canvas = np.empty((max(height, self.crop[0]), max(width, self.crop[1]), pixels.shape[2]), pixels.dtype)
        canvas[:] = fill
        top, left = (canvas.shape[0] - height) // 2, (canvas.shape[1] - width) // 2
        canvas[top : top + height, left : left + width] = pixels
        return canvas


def _check_work(given: tuple[int, int], resized: tuple[int, int]) -> None:
    """Raise ``ImageError`` where resizing (width, height) takes more pixels than ``LARGEST`` in one of its passes."""
    (width, height), (new_width, new_height) = given, resized
    if max(new_width * new_height, new_width * height, width * new_height) > LARGEST:
        raise ImageError(
            f"an image of {width} x {height} pixels is too long and thin: resized to {new_width} x {new_height} it "
            f"takes more than {LARGEST} pixels; cut it first"
        )


def _check(values: Mapping[str, Any]) -> None:
    """Check the fields of ``Preprocessing``.

    Raises:
        ManifestError: names the first that is not what ``Preprocessing`` says.
    """
    lists: tuple[tuple[str, int, Callable[[Any], bool], str], ...] = (
        ("resize", 2, _is_size, f"two whole numbers from 1 to {MAX_SIDE}"),
        ("crop", 2, _is_size, f"two whole numbers from 1 to {MAX_SIDE}"),
        ("mean", 3, _is_finite, "three finite numbers"),
        ("std", 3, _is_divisor, "three finite numbers above 0"),
        ("fill", 3, _is_colour, "three whole numbers 0..255"),
    )
    for name, count, fits, expected in lists:
        found = values[name]
        if not isinstance(found, list | tuple) or len(found) != count or not all(fits(value) for value in found):
            raise ManifestError(f"preprocessing.{name} is {found!r:.60}, not {expected}: export again")
    for name in ("exif", "antialias"):
        if not isinstance(values[name], bool):
            raise ManifestError(f"preprocessing.{name} is {values[name]!r:.60}, not true or false: export again")
    words = (("resize_mode", RESIZE_MODES), ("interpolation", INTERPOLATIONS), ("color_order", ("RGB",)))
    for name, known in words:
        if values[name] not in known:
            raise ManifestError(
                f"preprocessing.{name} is {values[name]!r:.60}, not one of {', '.join(known)}: export again"
            )
    if not values["antialias"] and values["interpolation"] not in METHODS:
        raise ManifestError(
            f"preprocessing.antialias false is for {' and '.join(METHODS)}, not {values['interpolation']}: export again"
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return _is_whole(value) and 0 < value <= MAX_SIDE


def _is_colour(value: Any) -> bool:
    return _is_whole(value) and 0 <= value <= 255


def _is_divisor(value: Any) -> bool:
    return _is_finite(value) and value >= float(FLOAT32.tiny)


def _is_finite(value: Any) -> bool:
    return (_is_whole(value) or isinstance(value, float)) and abs(value) <= float(FLOAT32.max)
