"""Frames as cameras and video decoders give them, as the (H, W, 3) uint8 RGB arrays that the runtime takes."""

from typing import Literal

import numpy as np

from gtp_runtime.errors import ImageError, InputError

Matrix = Literal["bt601", "bt709"]
LUMA: dict[str, tuple[float, float]] = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # red's and blue's share
BITS = 16  # of the fixed-point numbers


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
    return _to_rgb(frame[:rows, :columns], colour, matrix, full_range)


def _to_rgb(luma: np.ndarray, colour: np.ndarray, matrix: str, full_range: bool) -> np.ndarray:
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
