"""Whether the values of a preprocessing are such that its result means something."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from gtp_runtime.errors import ManifestError

RESIZE_MODES = ("shortest", "cover", "contain", "squash")
INTERPOLATIONS = tuple(method.name.lower() for method in Image.Resampling)
MAX_SIDE = 4096  # pixels of the crop and of what it is cut from; no ViT takes as many
LARGEST, SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)


def check(values: Mapping[str, Any]) -> None:
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
    words = (("resize_mode", RESIZE_MODES), ("interpolation", INTERPOLATIONS), ("color_order", ("RGB",)))
    for name, known in words:
        if values[name] not in known:
            raise ManifestError(
                f"preprocessing.{name} is {values[name]!r:.60}, not one of {', '.join(known)}: export again"
            )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return _is_whole(value) and 0 < value <= MAX_SIDE


def _is_colour(value: Any) -> bool:
    return _is_whole(value) and 0 <= value <= 255


def _is_divisor(value: Any) -> bool:
    return _is_finite(value) and value >= SMALLEST


def _is_finite(value: Any) -> bool:
    return (_is_whole(value) or isinstance(value, float)) and abs(value) <= LARGEST
