"""Amounts with a unit, as people write them: 20ms, 2h."""

import math
import re

import typer

SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_AMOUNT = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*")


def read_seconds(text: str | None, option: str) -> float | None:
    """Read "20ms", "90s", "15min" or "2h" as seconds.

    Raises:
        typer.BadParameter: no number above 0, or no unit of time.
    """
    if text is None:
        return None
    found = _AMOUNT.fullmatch(text)
    number, unit = found.groups() if found else ("", "")
    try:
        seconds = float(number) * SECONDS[unit]
    except (ValueError, KeyError):
        seconds = math.nan
    if not math.isfinite(seconds) or seconds <= 0:
        raise typer.BadParameter(
            f"{option} takes a time above 0 with its unit, like 20ms, 90s, 15min or 2h: not {text!r}"
        )
    return seconds
