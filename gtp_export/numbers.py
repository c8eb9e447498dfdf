"""Checks of numbers that options take: typer's own ranges let inf and nan through."""

import math

import typer


def finite(value: float | None) -> float | None:
    """Return the value of an option; reject inf and nan."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def positive(value: float | None) -> float | None:
    """Return the value of an option; reject inf, nan, and values of 0 or less."""
    if finite(value) is not None and value is not None and value <= 0:
        raise typer.BadParameter(f"{value:g} is not above 0.")
    return value
