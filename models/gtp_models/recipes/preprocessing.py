"""What a recipe says of preprocessing, checked: its names are those of timm's pretrained configuration."""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from gtp_runtime.messages import one_line

CROP_MODES = ("center", "squash", "border")
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming")
SWITCHES = ("exif", "antialias")  # which timm's configuration does not have
SMALLEST_CROP, LARGEST_CROP = 0.1, 2.0  # timm's are from 0.875 to 1.15


def problems(preprocessing: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with entries that replace timm's: an unknown name, a value outside of what makes sense."""
    for name, value in preprocessing.items():
        if name not in CHECKS:
            likely = get_close_matches(name, CHECKS, 1)
            hint = f"did you mean {likely[0]}?" if likely else f"it may have {', '.join(CHECKS)}"
            yield f"preprocessing has no {one_line(name, 40)!r}: {hint}"
        elif problem := CHECKS[name](value):
            yield f"preprocessing.{name} is {one_line(repr(value), 60)}: {problem}"


def _mean(values: Any) -> str:
    return _channels(values) or ("" if all(0 <= value <= 1 for value in values) else _scaled(values, "from 0 to 1"))


def _std(values: Any) -> str:
    return _channels(values) or ("" if all(0 < value <= 1 for value in values) else _scaled(values, "above 0, up to 1"))


def _scaled(values: Any, expected: str) -> str:
    scaled = ", ".join(f"{value / 255:.3f}" for value in values)
    divided = f"divide by 255: [{scaled}]" if max(values) > 1 and min(values) >= 0 else "give numbers in that range"
    return f"it is {expected}, as pixels are from 0 to 1; {divided}"


def _channels(values: Any) -> str:
    if isinstance(values, list | tuple) and values and all(map(_is_number, values)):
        return ""
    return "give one number per channel: [0.485, 0.456, 0.406]"


def _crop_pct(value: Any) -> str:
    if _is_number(value) and SMALLEST_CROP <= value <= LARGEST_CROP:
        return ""
    share = f"divide by 100: {value / 100:g}" if _is_number(value) and LARGEST_CROP < value <= 100 else "0.9 for 90 %"
    return f"it is the crop as a share of the resized image, from {SMALLEST_CROP:g} to {LARGEST_CROP:g}; {share}"


def _input_size(value: Any) -> str:
    whole = isinstance(value, list | tuple) and all(isinstance(side, int) and side > 0 for side in value)
    return "" if whole and len(value) == 3 else "give channels, height and width: [3, 224, 224]"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _one_of(names: tuple[str, ...]) -> Callable[[Any], str]:
    return lambda value: "" if value in names else f"choose one of {', '.join(names)}"


def _switch(value: Any) -> str:
    return "" if isinstance(value, bool) else "say true or false"


def _classes(value: Any) -> str:
    return "" if isinstance(value, int) and value >= 0 else "give a whole number"


CHECKS: dict[str, Callable[[Any], str]] = {
    "mean": _mean,
    "std": _std,
    "crop_pct": _crop_pct,
    "crop_mode": _one_of(CROP_MODES),
    "interpolation": _one_of(INTERPOLATIONS),
    "input_size": _input_size,
    "num_classes": _classes,
    **dict.fromkeys(SWITCHES, _switch),
}
