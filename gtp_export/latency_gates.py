"""Limits of latency that ``bench`` fails over: a budget in milliseconds, and the dense model's time."""

from collections.abc import Sequence
from dataclasses import dataclass

import typer

from gtp_export.numbers import positive
from gtp_runtime import Latency

PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class Budget:
    """The most milliseconds that a percentile of a file's times may take."""

    percentile: str
    milliseconds: float

    def missed(self, result: Latency) -> str:
        """Return what is wrong with a result, or ""."""
        taken: float = getattr(result, f"{self.percentile}_ms")
        if taken <= self.milliseconds:
            return ""
        return f"{result.file}: {self.percentile} {taken:.2f} ms is over the budget of {self.milliseconds:g} ms"


def parse_budget(value: "str | Budget") -> Budget:
    """Return the budget of an option: ``20`` is the median's, ``p99:20`` that of another percentile."""
    if isinstance(value, Budget):
        return value
    name, colon, number = value.rpartition(":")
    if colon and name not in PERCENTILES:
        raise typer.BadParameter(
            f"{name!r} is no percentile: give milliseconds, or one of {', '.join(PERCENTILES)} before them (p99:20)."
        )
    try:
        milliseconds = float(number)
    except ValueError:
        raise typer.BadParameter(f"{number!r} is no number of milliseconds: give 20, or p99:20.") from None
    positive(milliseconds)
    return Budget(name or PERCENTILES[0], milliseconds)


def over_budget(results: Sequence[Latency], dense: Sequence[bool], budget: Budget) -> list[str]:
    """Return what is wrong with each reduced file over the budget: dense files are there to compare with."""
    said = [budget.missed(result) for result, is_dense in zip(results, dense, strict=True) if not is_dense]
    return [text for text in said if text]


def slower_than_dense(results: Sequence[Latency], dense: Sequence[bool]) -> list[str]:
    """Return what is wrong with each reduced file whose median is not below that of every dense file.

    Args:
        results: of one run.
        dense: whether each is of a dense file; at least one is.
    """
    pairs = list(zip(results, dense, strict=True))
    best = min((result for result, is_dense in pairs if is_dense), key=lambda result: result.p50_ms)
    reduced = [result for result, is_dense in pairs if not is_dense]
    return [
        f"{result.file}: p50 {result.p50_ms:.2f} ms does not beat dense: {best.file} takes {best.p50_ms:.2f} ms"
        for result in reduced
        if result.p50_ms >= best.p50_ms
    ]
