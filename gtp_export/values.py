"""Values of options as people write them: numbers, times, MACs, image sizes. What is wrong is a usage error."""

import math
import re

import typer

from gtp_runtime.manifest import BatchRange

SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
TIMES = "20ms, 300s, 5m, 5min or 2h"
MACS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_AMOUNT = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)")


def finite(value: float | None) -> float | None:
    """Return the value of an option; reject inf and nan, which typer's own ranges let through."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def seconds(value: str | float) -> float:
    """Return a time of at least 0 in seconds: "20ms", "300s", "5m", "5min", "2h", or a number of seconds."""
    return _time(value, "s")


def milliseconds(value: str | float) -> float:
    """Return a time above 0 in milliseconds: "20ms", "0.5s", or a number of milliseconds."""
    time = 1e3 * _time(value, "ms")
    if time <= 0:
        raise typer.BadParameter(f"{value!r} is not above 0: give milliseconds, like 20 or 20ms.")
    return time


def positive_seconds(value: str | float) -> float:
    """Return a time above 0 in seconds, written as ``seconds`` reads it."""
    time = seconds(value)
    if time <= 0:
        raise typer.BadParameter(f"{value!r} is not above 0: give a time like {TIMES}.")
    return time


def share(value: str | float) -> float:
    """Return a share in (0, 1]."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1:
        hint = f" ({number / 100:g} of 1?)" if 1 < number <= 100 else ""
        raise typer.BadParameter(f"{value!r} is no share above 0 and at most 1{hint}: give one like 0.74.")
    return number


def macs(value: str | float) -> float:
    """Return a number of MACs: "3.4G", "850M" or a plain number."""
    if isinstance(value, float):
        return value
    amount = _AMOUNT.fullmatch(value.strip())
    if amount is None or amount[2].upper() not in MACS:
        raise typer.BadParameter(f"{value!r} is no number of MACs: give one like 3.4G or 850M.")
    count = float(amount[1]) * MACS[amount[2].upper()]
    if amount[2] == "" and count < 1e3:
        raise typer.BadParameter(
            f"{value!r} would be {count:g} MACs for a whole image: give an amount like {value}G, or the share of the "
            "dense model's with --keep 0.74."
        )
    return count


def schedule(value: str) -> str:
    """Return a schedule whose form is right."""
    from gtp_models.errors import ConfigError
    from gtp_models.schedules import check_schedule

    try:
        return check_schedule(value)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


def num_prop(value: "str | int | tuple[int, ...]") -> "int | tuple[int, ...]":
    """Return the tokens removed in every layer ("8"), or one number per layer ("4,8")."""
    return _whole_numbers(value, ",") if isinstance(value, str) else value


def layers(value: "str | tuple[int, ...]") -> tuple[int, ...]:
    """Return the layers of "2,5,8,11", ascending."""
    if not isinstance(value, str):
        return value
    numbers = _whole_numbers(value, ",")
    chosen = (numbers,) if isinstance(numbers, int) else numbers
    if min(chosen) < 0 or sorted({*chosen}) != [*chosen]:
        raise typer.BadParameter(f"{value!r}: give layers from 0, ascending, each once, like 2,5,8,11.")
    return chosen


def batch(value: "str | int | BatchRange") -> "int | BatchRange":
    """Return the images of a run of "8", or the range of "1..16"."""
    if not isinstance(value, str):
        return value
    first, *rest = value.split("..")
    try:
        sizes = [int(part) for part in (first, *rest)]
        if len(sizes) == 2 and sizes[0] != sizes[1]:
            return BatchRange(*sizes)
    except ValueError:
        sizes = []
    if len(sizes) != 1 or sizes[0] < 1:
        raise typer.BadParameter(f"{value!r} is no batch: give the images of a run, like 8, or a range, like 1..16.")
    return sizes[0]


def image_size(value: "str | tuple[int, int]") -> tuple[int, int]:
    """Return (height, width) in pixels of "224" or "HEIGHTxWIDTH"."""
    if not isinstance(value, str):
        return value
    size = _whole_numbers(value, "x")
    height, *rest = (size, size) if isinstance(size, int) else size
    if len(rest) != 1:
        raise typer.BadParameter(f"{value!r} is no image size: give one number or HEIGHTxWIDTH.")
    return height, rest[0]


def words(text: str) -> tuple[str, ...]:
    """Return the words of "a, b"."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _time(value: str | float, unit: str) -> float:
    """Return seconds; a number without a unit is in this one."""
    amount = _AMOUNT.fullmatch(str(value).strip())
    factor = None if amount is None else SECONDS.get(amount[2] or unit)
    time = math.inf if amount is None or factor is None else float(amount[1]) * factor
    if not math.isfinite(time):
        raise typer.BadParameter(f"{value!r} is no time: give a number ({unit}), or one with a unit like {TIMES}.")
    return time


def _whole_numbers(text: str, separator: str) -> "int | tuple[int, ...]":
    try:
        numbers = tuple(int(part) for part in text.split(separator))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: give whole numbers like 8 or 4{separator}8.") from None
    return numbers if separator in text else numbers[0]
