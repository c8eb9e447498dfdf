"""Reads recipe files: YAML from anywhere, checked before anything is made of it.

The names of ``preprocessing`` are those of timm's pretrained configuration.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gtp_models.errors import ConfigError, UnknownModelError
from gtp_models.methods.settings import is_int
from gtp_runtime.images.class_folders import ORDERS
from gtp_runtime.messages import is_text, one_line
from gtp_runtime.opening import read_regular

LARGEST = 1 << 20  # bytes; 20,000 class names take half of it
DEEPEST = 16  # levels
MOST = 1 << 16  # of any number in model_args: pixels, channels, layers, classes
MOST_LAYERS = 512
FILES = ("weights", "images", "calibration")
SIZES = ("weights_img_size",)
SWITCHES = ("projection", "ema", "random_head")
ACTIVATIONS = ("softmax", "sigmoid")
IMAGENET = "imagenet-1k"
LOADING = {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "model_name"}
TABLES = ("gtp", "model_args", "preprocessing", "reference")


def read_values(path: Path, names: Collection[str]) -> dict[str, Any]:
    """Return what a recipe file says, by field of ``Recipe``; paths are relative to the file.

    Args:
        path: the file.
        names: that it may have.

    Raises:
        UnknownModelError: it cannot be read.
        ConfigError: it is no recipe; says what is wrong.
    """
    try:
        content = read_regular(path, LARGEST)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnknownModelError(f"cannot read the recipe {path}: {one_line(reason)}") from error
    values = _parse(content, path)
    if problem := next(filter(None, _problems(values, names)), None):
        raise ConfigError(f"{path} is not a recipe: {problem}")
    values = {name: value for name, value in values.items() if value is not None}
    values |= {name: path.parent / values[name] for name in FILES if values.get(name)}
    values |= {name: tuple(values[name]) for name in SIZES if name in values}
    return {"name": path.stem, "title": values["timm"]} | values


def _parse(content: bytes, path: Path) -> Any:
    import yaml

    try:
        if problem := next(filter(None, _event_problems(yaml.parse(content, Loader=yaml.SafeLoader))), None):
            raise ConfigError(f"{path} is not a recipe: {problem}")
        return yaml.safe_load(content)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {one_line(error)}") from error
    except (ValueError, TypeError, OverflowError, LookupError, AttributeError) as error:  # no date, no number
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not YAML: {one_line(error)}") from error


def _event_problems(events: Iterator[Any]) -> Iterator[str]:
    """Aliases can make a small file a huge document; recipes need none."""
    import yaml

    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            yield "it has aliases (*name): write the values out"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            yield f"it is nested more than {DEEPEST} levels deep"


def _problems(values: Any, names: Collection[str]) -> Iterator[str]:
    if not isinstance(values, dict) or not isinstance(values.get("timm"), str) or values.keys() - set(names):
        yield f"it needs timm: NAME, and may have {', '.join(sorted(names))}"
        return
    for group, fits, what in (
        (("name", "title", "timm", *FILES), _is_line, "a line of text"),
        (TABLES, _is_table, "settings by name (num_prop: 8)"),
        (("labels",), _is_labels, f"{IMAGENET}, or a list of names in quotes"),
        (("activation",), lambda value: value in ACTIVATIONS, " or ".join(ACTIVATIONS)),
        (("class_order",), lambda value: value in ORDERS, " or ".join(ORDERS)),
        (SWITCHES, _is_switch, "true or false"),
        (SIZES, _is_size, "height and width in pixels"),
    ):
        yield from (f"{name} takes {what}" for name in group if not _holds(values, name, fits))
    if not _holds(values.get("gtp") or {}, "preset", _is_line):
        yield "gtp.preset takes the name of a preset"
    if set(str(values.get("name", ""))) & set("/\\"):
        yield "name takes a plain name"
    if loading := LOADING & set(values.get("model_args") or {}):
        yield f"model_args has {', '.join(sorted(loading))}: weights are given by weights, or --weights"
    yield from size_problems("model_args", values.get("model_args"))
    yield from problems(values["preprocessing"]) if _is_table(values.get("preprocessing")) else ()


def _holds(values: dict[str, Any], name: str, fits: Callable[[Any], bool]) -> bool:
    return values.get(name) is None or fits(values[name])


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and is_text(value)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_line, value))


def _is_labels(value: Any) -> bool:
    return value == IMAGENET or (isinstance(value, list) and all(map(_is_line, value)))


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(is_int(side) and 0 < side <= MOST for side in value)


def size_problems(name: str, value: Any) -> Iterator[str]:
    """Yield which numbers of a model's arguments are too large: it is made in memory, so they are bounded before."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, entry in entries:
        most = MOST_LAYERS if key == "depth" else MOST
        if isinstance(entry, int | float) and not -most <= entry <= most:
            yield f"{name}.{one_line(key, 40)} takes at most {most}"
        yield from size_problems(f"{name}.{one_line(key, 40)}", entry)


CROP_MODES = ("center", "squash", "border")
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming")
PIXEL_SWITCHES = ("exif", "antialias")  # of preprocessing, which timm's configuration does not have
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
    **dict.fromkeys(PIXEL_SWITCHES, _switch),
}
