"""What the inputs of products are on calibration images: the range of each channel, means and covariances, some rows.

A row is a token's vector. Outliers stand in few tokens, which random rows would miss: of every image the row with the
largest value is kept beside random ones, and each row counts as often as it stands for others.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from gtp_exporters.agreement import make_session
from gtp_runtime.errors import ImageError

ROWS = 7  # random rows of each image, beside the one with the largest value
COUNTED = 64  # rows of each run whose covariance is measured, at least where there are as many: evenly over the tokens


@dataclass
class Sample:
    """A value inside a graph on all images.

    Attributes:
        low, high: smallest and largest value of each channel, (C,) float32; (1,) without rows.
        rows: (N, C) float32.
        shares: (N,) how much each row stands for; the sum is 1.
        mean: of each channel, (C,) float32; (1,) without rows.
        covariance: of the channels, (C, C) float32; (0, 0) without rows.
    """

    low: np.ndarray
    high: np.ndarray
    rows: np.ndarray
    shares: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray


class _Counting:
    """What is counted of one value of C channels, a run at a time."""

    def __init__(self, width: int | None) -> None:
        size = width or 1
        self.by_row = width is not None
        self.low, self.high = np.full(size, np.inf, np.float32), np.full(size, -np.inf, np.float32)
        self.rows: list[np.ndarray] = []
        self.shares: list[np.ndarray] = []
        self.moments = _Moments(width or 0)

    def add(self, values: np.ndarray, rng: np.random.Generator) -> None:
        table = values.reshape(-1, len(self.low))
        np.minimum(self.low, table.min(0), out=self.low)
        np.maximum(self.high, table.max(0), out=self.high)
        if self.by_row:
            places, shares = _places(table, rng)
            self.rows.append(table[places])
            self.shares.append(shares)
            self.moments.add(table[:: max(1, len(table) // COUNTED)])

    def sample(self) -> Sample:
        if not self.rows:
            return Sample(self.low, self.high, np.zeros((0, 1), np.float32), np.zeros(0), *self.moments.ends())
        shares = np.concatenate(self.shares) / len(self.rows)
        return Sample(self.low, self.high, np.concatenate(self.rows), shares, *self.moments.ends())


class _Moments:
    """Sums over rows, from a first mean on, so that float32 is enough."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.first, self.sums = np.zeros(width, np.float32), np.zeros(width)
        self.squares = np.zeros((width, width), np.float32)

    def add(self, rows: np.ndarray) -> None:
        if not self.count:
            self.first = rows.mean(0)
        apart = rows - self.first
        self.count += len(rows)
        self.sums += apart.sum(0)
        self.squares += apart.T @ apart

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the covariance."""
        mean = self.sums / max(1, self.count)
        covariance = self.squares / max(1, self.count) - np.outer(mean, mean)
        return (self.first + mean).astype(np.float32), covariance.astype(np.float32)


def _places(table: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a (tokens, C) table that are kept, the one with the largest value first, and their shares."""
    largest = int(np.abs(table).max(1).argmax())
    others = np.delete(np.arange(len(table)), largest)
    chosen = rng.choice(others, min(ROWS, len(others)), replace=False)
    shares = np.full(1 + len(chosen), (len(table) - 1) / max(1, len(chosen)) / len(table))
    shares[0] = 1 / len(table)
    return np.concatenate([[largest], chosen]).astype(int), shares


def collect(
    model: ir.Model, widths: Mapping[str, int | None], batches: Iterable[np.ndarray], threads: int, seed: int = 0
) -> dict[str, Sample]:
    """Run a graph on images and return what its values were.

    Args:
        model: float32.
        widths: names of values, with the size of the last axis whose rows are kept; None: the range alone.
        batches: inputs of the graph.
        threads: 0 for all.
        seed: of the rows.

    Raises:
        ImageError: a value is not finite.
    """
    session, rng = make_session(with_outputs(model, widths), threads), np.random.default_rng(seed)
    name = session.get_inputs()[0].name
    counting = {value: _Counting(width) for value, width in widths.items()}
    for batch in batches:
        for value, values in zip(widths, session.run(list(widths), {name: batch}), strict=True):
            if not np.isfinite(values).all():
                raise ImageError(f"{value} is not finite on the calibration images: check the model's weights")
            counting[value].add(values, rng)
    return {value: counts.sample() for value, counts in counting.items()}


def with_outputs(model: ir.Model, names: Collection[str]) -> ir.Model:
    """Return a copy of a graph that also puts out values inside it."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs} | {
        value.name: value for value in copy.graph.inputs
    }
    there = {value.name for value in copy.graph.outputs}
    copy.graph.outputs.extend(values[name] for name in names if name not in there)
    return copy
