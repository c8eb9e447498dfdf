"""Which scale each channel gets, and which range the whole input, so that a product loses least in int8.

SmoothQuant (Xiao et al., 2023, section 4): x W = (x / s)(s W), with one s for each channel, moves what is hard to
quantise from inputs to weights. Here s is a power of two, so that float32 computes the same numbers, bit for bit. How
much is moved is what loses least on rows of calibration images. The range is never clipped: the largest values stand in
few tokens and cost little in the mean, but a model that has them relies on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gtp_exporters.quantizing.rounding import LARGEST, steps
from gtp_exporters.quantizing.samples import Sample

STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # SmoothQuant's alpha: how much of the difficulty is moved into weights
LEAST = 1e-4  # of the largest; a channel below is as if it had this


@dataclass(frozen=True)
class Scaling:
    """What was chosen for the input of one or more products.

    Attributes:
        scales: (C,) powers of two that the input is divided by, and the weights multiplied with.
        low, high: the range of the input once it is divided.
        error: mean squared error of the products' outputs by quantisation, over the square of these outputs.
    """

    scales: np.ndarray
    low: float
    high: float
    error: float


def unscaled(sample: Sample, weights: Sequence[np.ndarray], *, symmetric: bool) -> Scaling:
    """Return what an input loses as it is; arguments as those of ``best``."""
    return _ranged(sample, weights, np.ones(len(sample.low), np.float32), symmetric=symmetric)


def best(sample: Sample, weights: Sequence[np.ndarray], *, symmetric: bool) -> Scaling:
    """Return the scales with the least error.

    Args:
        sample: of the input, C channels.
        weights: (C, outputs) of each product that takes it.
        symmetric: the range reaches as far below 0 as above.
    """
    inputs = _floored(np.maximum(np.abs(sample.low), np.abs(sample.high)))
    strongest = _floored(np.max([np.abs(weight).max(1) for weight in weights], 0))
    tried = [unscaled(sample, weights, symmetric=symmetric)]
    for strength in STRENGTHS:
        scales = _powers(strength * np.log2(inputs) - (1 - strength) * np.log2(strongest))
        tried.append(_ranged(sample, weights, scales, symmetric=symmetric))
    return min(tried, key=lambda scaling: scaling.error)


def _floored(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, max(float(values.max()) * LEAST, 1e-30))


def _powers(logarithms: np.ndarray) -> np.ndarray:
    centred = logarithms - np.median(logarithms)
    return np.asarray(np.exp2(np.rint(centred)), np.float32)


def _ranged(sample: Sample, weights: Sequence[np.ndarray], scales: np.ndarray, *, symmetric: bool) -> Scaling:
    rows, energies = sample.rows / scales, [_energy(sample, weight) for weight in weights]
    scaled = [weight * scales[:, None] for weight in weights]
    importance = sum((np.square(w).sum(1) / e for w, e in zip(scaled, energies, strict=True)), np.zeros(len(scales)))
    importance = importance.astype(np.float32)
    squares = sample.shares @ np.square(rows)
    lost = sum(squares @ _rounding(w) / e for w, e in zip(scaled, energies, strict=True))
    low, high = min(0.0, float((sample.low / scales).min())), max(0.0, float((sample.high / scales).max()))

    errors = np.square(_rounded(rows, low, high, symmetric=symmetric) - rows)
    error = (float(sample.shares @ (errors @ importance)) + lost) / len(weights)
    return Scaling(scales, low, high, float(error))


def shift(
    sample: Sample, weight: np.ndarray, rounded_weight: np.ndarray, scaling: Scaling, *, symmetric: bool
) -> np.ndarray:
    """Return by how much int8 lowers each output of a product in the mean, (outputs,): what its bias should gain.

    Args:
        sample: of the input before it was divided.
        weight: (C, outputs), multiplied with the scales.
        rounded_weight: the same in int8's values.
        scaling: of the input.
        symmetric: as for ``best``.
    """
    rows = sample.rows / scaling.scales
    rounded = _rounded(rows, scaling.low, scaling.high, symmetric=symmetric)
    by_weight: np.ndarray = (sample.mean / scaling.scales) @ (weight - rounded_weight)
    by_input: np.ndarray = (sample.shares @ (rows - rounded)) @ rounded_weight
    return np.asarray(by_weight + by_input, np.float32)


def _energy(sample: Sample, weight: np.ndarray) -> float:
    return max(float(sample.shares @ np.square(sample.rows @ weight).sum(1)), 1e-30)


def _rounding(weight: np.ndarray) -> np.ndarray:
    """Return the squared error of int8 weights, symmetric with one scale per output, by input channel."""
    return np.asarray(np.square(weight_rounded(weight) - weight).sum(1))


def weight_rounded(weight: np.ndarray, largest: int = LARGEST) -> np.ndarray:
    """Return (C, outputs) weights as int8 has them: symmetric, one scale for each output."""
    step = steps(weight, largest)
    return np.asarray(np.rint(weight / step) * step)


def step_of(low: float, high: float, *, symmetric: bool) -> tuple[np.float32, int]:
    """Return the step of 8 bits over a range, and the code of 0."""
    if symmetric:
        return np.float32(max(-low, high, 1e-30) / 127), 0
    step = np.float32(max(high - low, 1e-30) / 255)
    return step, int(np.rint(-low / step))


def _rounded(values: np.ndarray, low: float, high: float, *, symmetric: bool) -> np.ndarray:
    """Return values as 8 bits have them."""
    step, zero = step_of(low, high, symmetric=symmetric)
    first, last = (-128, 127) if symmetric else (-zero, 255 - zero)
    return np.asarray(np.clip(np.rint(values / step), first, last) * step)
