"""What the inputs of products are on calibration images: the range of each channel, and some of their rows.

A row is a token's vector. Outliers stand in few tokens, which random rows would miss: of every image the row with the
largest value is kept beside random ones, and each row counts as often as it stands for others.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from gtp_exporters.agreement import make_session
from gtp_runtime.errors import ImageError

ROWS = 7  # random rows of each image, beside the one with the largest value


@dataclass
class Sample:
    """A value inside a graph on all images.

    Attributes:
        low, high: smallest and largest value of each channel, (C,) float32; (1,) without rows.
        rows: (N, C) float32.
        shares: (N,) how much each row stands for; the sum is 1.
    """

    low: np.ndarray
    high: np.ndarray
    rows: np.ndarray
    shares: np.ndarray


@dataclass
class _Counting:
    low: np.ndarray
    high: np.ndarray
    rows: list[np.ndarray] = field(default_factory=list)
    shares: list[np.ndarray] = field(default_factory=list)

    def add(self, values: np.ndarray, rng: np.random.Generator, *, by_row: bool) -> None:
        table = values.reshape(-1, values.shape[-1]) if by_row else values.reshape(-1, 1)
        np.minimum(self.low, table.min(0), out=self.low)
        np.maximum(self.high, table.max(0), out=self.high)
        if by_row:
            places, shares = _places(table, rng)
            self.rows.append(table[places])
            self.shares.append(shares)

    def sample(self) -> Sample:
        if not self.rows:
            return Sample(self.low, self.high, np.zeros((0, 1), np.float32), np.zeros(0))
        return Sample(self.low, self.high, np.concatenate(self.rows), np.concatenate(self.shares) / len(self.rows))


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
    counting = {
        value: _Counting(np.full(width or 1, np.inf, np.float32), np.full(width or 1, -np.inf, np.float32))
        for value, width in widths.items()
    }
    for batch in batches:
        for value, values in zip(widths, session.run(list(widths), {name: batch}), strict=True):
            if not np.isfinite(values).all():
                raise ImageError(f"{value} is not finite on the calibration images: check the model's weights")
            counting[value].add(values, rng, by_row=widths[value] is not None)
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
