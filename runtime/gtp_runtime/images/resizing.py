"""Resizing without an antialiasing filter, as OpenCV and ``torch.nn.functional.interpolate(antialias=False)`` do it.

A pixel of the result lies at (place + 0.5) · old / new - 0.5 of the old image (half-pixel centres; beyond an edge the
edge's pixel counts), and is a weighted mean of the 2 (bilinear) or 4 (bicubic) nearest pixels along each axis, however
much the image shrinks. Pillow would widen the filter instead. Source: OpenCV's documentation of ``cv::resize``,
INTER_LINEAR and INTER_CUBIC; R. Keys, Cubic convolution interpolation for digital image processing (1981), a = -0.75.
"""

from collections.abc import Callable

import numpy as np

BLOCK = 1 << 18  # pixels that are weighted at once
SHARPNESS = -0.75  # a of Keys' kernel; Pillow's is -0.5


def resize_plain(pixels: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
    """Resize (H, W, 3) uint8 pixels to ``size`` (width, height) without antialiasing, by one of ``METHODS``."""
    columns, rows = _taps(pixels.shape[1], size[0], method), _taps(pixels.shape[0], size[1], method)
    result = np.empty((size[1], size[0], pixels.shape[2]), np.uint8)
    step = max(1, BLOCK // pixels.shape[1])
    for start in range(0, size[1], step):
        part = slice(start, start + step)
        high = sum(weight[part, None, None] * pixels[place[part]] for place, weight in rows)
        wide = sum(weight[:, None] * np.take(high, place, 1) for place, weight in columns)
        result[part] = np.clip(np.rint(wide), 0, 255)
    return result


def _taps(old: int, new: int, method: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each tap of the filter which old pixel it reads, (new,) int64, and its weight, (new,) float32."""
    places = (np.arange(new) + 0.5) * (old / new) - 0.5
    lowest = np.floor(places).astype(np.int64)
    share = places - lowest
    offsets, kernel = KERNELS[method]
    return [
        (np.clip(lowest + offset, 0, old - 1), kernel(np.abs(share - offset)).astype(np.float32)) for offset in offsets
    ]


def _triangle(distance: np.ndarray) -> np.ndarray:
    return 1 - distance


def _keys(distance: np.ndarray) -> np.ndarray:
    """Weigh by Keys' cubic kernel; ``distance`` is at most 2 pixels."""
    a, near, far = SHARPNESS, np.minimum(distance, 1), np.maximum(distance, 1)
    within = ((a + 2) * near - (a + 3)) * near**2 + 1
    beyond = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return np.asarray(np.where(distance <= 1, within, beyond))


KERNELS: dict[str, tuple[range, Callable[[np.ndarray], np.ndarray]]] = {
    "bilinear": (range(2), _triangle),
    "bicubic": (range(-1, 3), _keys),
}
METHODS = tuple(KERNELS)
