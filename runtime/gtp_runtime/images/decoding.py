"""From a file, its bytes, a Pillow image, an array or a camera's frame to 8-bit RGB.

One picture gives the same pixels in every mode:

- The alpha channel is dropped without blending, as Pillow's ``convert("RGB")`` does. ``La`` and ``RGBa`` are first
  divided by their alpha.
- 16-bit grey (``I;16``, ``I;16B``, ``I;16L``, ``I;16N``, and ``I`` from a PNG or PPM file) is divided by 257 and
  rounded, so that 0..65535 becomes 0..255; a TIFF of 12 bits likewise from 0..4095.
- Other ``I`` and ``F`` pictures do not define which value is white. They are read as 0..255, as Pillow does, and
  rejected if their values are in another range: outside 0..255, not finite, or ``F`` with no value above 1.

Files come from anywhere: only ``FORMATS`` are read (for EPS Pillow would run Ghostscript), only from regular files, and
of at most ``LARGEST`` pixels, which is checked before a pixel is decoded. One picture takes less than 1 GB of memory.
"""

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from typing import BinaryIO, Literal, Union

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gtp_runtime.errors import ImageError, InputError
from gtp_runtime.messages import one_line
from gtp_runtime.opening import open_regular

LARGEST = 1 << 26  # pixels: 8192 x 8192
LARGEST_FILE = 1 << 29  # bytes: as many pixels of 8 bytes, stored plainly
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # of folders.SUFFIXES, and .jp2
BLOCK = 1 << 20  # pixels of more than 8 bits that are looked at at once

Buffer = bytes | bytearray | memoryview  # the content of an image file
ImageLike = Union[str, "PathLike[str]", Buffer, BinaryIO, Image.Image, np.ndarray]
WHITE = 255
WHITE_16 = 65535
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of TIFF; photometric 0: zero is white
Matrix = Literal["bt601", "bt709"]
LUMA: dict[str, tuple[float, float]] = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # red's and blue's share
BITS = 16  # of the fixed-point numbers
THROUGH = {"La": "LA", "P": "RGBA", "PA": "RGBA"}  # modes that reach RGB by another one, without loss or warnings


def open_image(image: ImageLike, *, exif: bool = False) -> Image.Image:
    """Return an RGB picture of a path, the bytes of an image file, an open one, a Pillow image or an (H, W, 3) uint8
    array in RGB order.

    An open file is read from its start, and left open.

    Raises:
        ImageError: a file is missing, too large or not an image, an array has another shape or type, the object is of
            another type, or the range of the values is unknown.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ImageError(f"an array must be (H, W, 3) uint8 in RGB order, not {image.shape} {image.dtype}")
        return Image.fromarray(image)
    if not isinstance(image, str | PathLike | Image.Image | Buffer) and not hasattr(image, "read"):
        raise ImageError(
            "give a path, bytes of an image file, an open file, a Pillow image or an (H, W, 3) uint8 array, not "
            f"{type(image).__name__}"
        )
    if isinstance(image, io.TextIOBase):
        raise ImageError(f"{_named(image)} was opened as text: open it in binary mode, 'rb'")
    try:
        if isinstance(image, Image.Image):
            return _to_rgb(image, exif)
        with _opened(image) as file, Image.open(file, formats=FORMATS) as picture:
            return _to_rgb(picture, exif)
    except FileNotFoundError as error:
        raise ImageError(f"no image {_named(image)}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"cannot identify image file {_named(image)}: it is none of {', '.join(FORMATS)}") from error
    except Exception as error:  # each of Pillow's readers has exceptions of its own
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot read the image {_named(image)}: {one_line(reason)}") from error


def _opened(image: "str | PathLike[str] | Buffer | BinaryIO") -> AbstractContextManager[BinaryIO]:
    if isinstance(image, Buffer):
        return io.BytesIO(image)
    return open_regular(image, LARGEST_FILE) if isinstance(image, str | PathLike) else nullcontext(image)


def _named(image: object) -> str:
    """Say in words which image it is: content is no name."""
    if isinstance(image, str | PathLike):
        return str(image)
    if isinstance(image, Buffer):
        return f"of {len(image)} bytes"
    return str(getattr(image, "name", "")) or str(image)


def _to_rgb(picture: Image.Image, exif: bool) -> Image.Image:
    if not all(picture.size):
        raise ValueError("it has no pixels")
    if picture.width * picture.height > LARGEST:
        raise ValueError(f"it has {picture.width} x {picture.height} pixels, at most {LARGEST} are read: shrink it")
    picture.load()
    white = _white(picture)
    turned = ImageOps.exif_transpose(picture) if exif else picture
    if white is not None:
        turned = _scaled(turned, white)
    elif turned.mode in THROUGH:
        turned = turned.convert(THROUGH[turned.mode])
    return turned.convert("RGB")


def _white(picture: Image.Image) -> int | None:
    """Return the value of white in a grey picture of more than 8 bits; None for the other modes.

    Raises:
        ValueError: the range is unknown.
    """
    if picture.mode.startswith("I;16"):
        tags = getattr(picture, "tag_v2", {})
        if tags.get(PHOTOMETRIC) == 0:
            raise ValueError("a 16-bit TIFF where 0 is white: invert it first")
        return WHITE_16 if tags.get(BITS_PER_SAMPLE) != (12,) else 4095
    if picture.mode not in ("I", "F"):
        return None
    if picture.mode == "I" and picture.format in (
        "PNG",
        "PPM",
    ):  # older Pillows open 16-bit PNG so, all of them 16-bit PPM
        return WHITE_16
    _check_range(picture)
    return WHITE


def _blocks(picture: Image.Image) -> Iterator[np.ndarray]:
    """Yield a picture's rows from the top, a few at a time: as a whole, Pillow copies them more than once."""
    rows = max(1, BLOCK // picture.width)
    for top in range(0, picture.height, rows):
        yield np.asarray(picture.crop((0, top, picture.width, min(top + rows, picture.height))))


def _check_range(picture: Image.Image) -> None:
    ranges = np.array([(block.min(), block.max()) for block in _blocks(picture)], np.float64)
    low, high, mode = float(ranges[:, 0].min()), float(ranges[:, 1].max()), picture.mode
    if not (low >= 0 and high <= WHITE) or (mode == "F" and 0 < high <= 1):
        raise ValueError(
            f"its mode {mode} does not define which value is white, and its values are {low:g} to {high:g}: scale "
            "them to 0..255 and convert to mode L, or save it as a 16-bit PNG with values of 0..65535"
        )


def _scaled(picture: Image.Image, white: int) -> Image.Image:
    """Scale 0..white to 0..255."""
    scaled = [np.rint(block.astype(np.float64) * (WHITE / white)).astype(np.uint8) for block in _blocks(picture)]
    return Image.fromarray(np.concatenate(scaled))


def from_bgr(frame: np.ndarray) -> np.ndarray:
    """Turn an (H, W, 3) or (H, W, 4) uint8 frame in BGR or BGRA order, as OpenCV reads it, into (H, W, 3) RGB.

    Raises:
        ImageError: an array of another shape or type.
    """
    frame = np.asarray(frame)
    if frame.ndim != 3 or frame.shape[2] not in (3, 4) or frame.dtype != np.uint8 or not frame.size:
        raise ImageError(f"a BGR frame is (H, W, 3) uint8, this one is {frame.shape} {frame.dtype}")
    return np.ascontiguousarray(frame[..., 2::-1])


def from_nv12(
    frame: np.ndarray, width: int | None = None, *, matrix: Matrix = "bt601", full_range: bool = False
) -> np.ndarray:
    """Turn an NV12 frame into (H, W, 3) uint8 RGB; the colour of each 2 x 2 pixels is not interpolated.

    Args:
        frame: (H * 3 / 2, row) uint8: H rows of luma, then H / 2 rows of U and V in turn.
        width: pixels of a row, where a row is padded behind them; default: the whole row. It is even.
        matrix: "bt601" (standard definition, JPEG, OpenCV) or "bt709" (high definition).
        full_range: values use 0..255, as in JPEG; off, luma uses 16..235 and colour 16..240, as in video.

    Raises:
        ImageError: an array of another shape or type, or narrower than ``width``.
        InputError: an unknown ``matrix``, an odd ``width``.
    """
    frame = np.asarray(frame)
    if matrix not in LUMA:
        raise InputError(f"matrix={matrix!r} is unknown: choose one of {', '.join(LUMA)}")
    if frame.ndim != 2 or frame.shape[0] % 3 or frame.dtype != np.uint8 or not frame.size:
        raise ImageError(
            f"an NV12 frame is (H * 3 / 2, W) uint8 with an even H, this one is {frame.shape} {frame.dtype}"
        )
    columns = frame.shape[1] if width is None else width
    if columns % 2 or columns < 2:
        raise InputError(f"width={columns}: give an even number of pixels, NV12 has one colour for two")
    if columns > frame.shape[1]:
        raise ImageError(f"the rows of this NV12 frame hold {frame.shape[1]} values, fewer than width={columns}")
    rows = frame.shape[0] * 2 // 3
    colour = frame[rows:, :columns].reshape(rows // 2, columns // 2, 2)
    return _yuv_to_rgb(frame[:rows, :columns], colour, matrix, full_range)


def _yuv_to_rgb(luma: np.ndarray, colour: np.ndarray, matrix: str, full_range: bool) -> np.ndarray:
    """Combine (H, W) luma and (H / 2, W / 2, 2) colour by tables in fixed point, rounded."""
    red, blue = LUMA[matrix]
    bright, scale = (np.arange(256), 1.0) if full_range else ((np.arange(256) - 16) * (255 / 219), 255 / 224)
    centred = (np.arange(256) - 128) * scale
    u, v = colour[..., 0], colour[..., 1]
    of_v, of_u = 2 * (1 - red) * centred, 2 * (1 - blue) * centred
    green = (_fixed(-of_v * red / (1 - red - blue))[v], _fixed(-of_u * blue / (1 - red - blue))[u])
    base = _fixed(bright)[luma] + (1 << (BITS - 1))
    picture = np.empty((*luma.shape, 3), np.uint8)
    for channel, added in enumerate((_fixed(of_v)[v], green[0] + green[1], _fixed(of_u)[u])):
        values = (base + added.repeat(2, 0).repeat(2, 1)) >> BITS
        picture[..., channel] = np.clip(values, 0, 255)
    return picture


def _fixed(values: np.ndarray) -> np.ndarray:
    return np.rint(values * (1 << BITS)).astype(np.int32)
