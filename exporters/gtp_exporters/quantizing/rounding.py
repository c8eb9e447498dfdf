"""Which int8 codes the weights of a product get, so that its outputs change least: not always the nearest ones.

GPTQ (Frantar et al., 2023, section 3): the weights of one input channel after another are rounded, and those of the
channels that are left make up for what was lost, as far as these channels go together on calibration images. The
scales of the weights stay as they are. Inputs are rounded too, which acts like noise in each channel by itself.
"""

from collections.abc import Sequence

import numpy as np

BLOCK = 128  # channels whose losses are handed on together
DAMPING = 0.01  # of the mean square of a channel is added to each: what few images show is not relied on
LARGEST = 127  # code of 8 bits, either side of 0


def codes(
    weights: Sequence[np.ndarray], covariance: np.ndarray, noise: float, largest: int = LARGEST
) -> list[np.ndarray]:
    """Return the int8 codes of the weights of products that take the same input, symmetric, one scale per output.

    Args:
        weights: (C, outputs) float32 of each product.
        covariance: (C, C) of the input over tokens; its means are left to the bias.
        noise: mean square of what rounding adds to each channel of the input.
        largest: code.

    Returns:
        (C, outputs) int8 of each product, in steps of ``steps``.
    """
    table = np.concatenate(weights, 1).astype(np.float32)
    rounded = _rounded(table / steps(table, largest), _factor(covariance, noise), largest)
    return np.split(rounded, np.cumsum([weight.shape[1] for weight in weights])[:-1], 1)


def steps(weight: np.ndarray, largest: int = LARGEST) -> np.ndarray:
    """Return the step of each output's int8 weights, (outputs,), of (C, outputs) weights."""
    return np.asarray(np.maximum(np.abs(weight).max(0), 1e-30) / largest)


def _factor(covariance: np.ndarray, noise: float) -> np.ndarray:
    """Return the upper triangular U with U'U = the inverse of the covariance with noise; row i: how i's loss moves."""
    matrix = covariance.astype(np.float64)
    matrix[np.diag_indices(len(matrix))] += noise + DAMPING * np.trace(covariance) / len(covariance) + 1e-30
    return np.asarray(np.linalg.cholesky(np.linalg.inv(matrix)).T, np.float32)


def _rounded(table: np.ndarray, factor: np.ndarray, largest: int) -> np.ndarray:
    """Return the codes of (C, outputs) weights in steps, each channel's loss moved to those after it."""
    left, chosen = table.copy(), np.zeros(table.shape, np.int8)
    for start in range(0, len(table), BLOCK):
        stop = min(start + BLOCK, len(table))
        moved = np.zeros((stop - start, table.shape[1]), np.float32)
        for channel in range(start, stop):
            nearest = np.clip(np.rint(left[channel]), -largest, largest)
            chosen[channel] = nearest
            moved[channel - start] = (left[channel] - nearest) / factor[channel, channel]
            left[channel + 1 : stop] -= np.outer(factor[channel, channel + 1 : stop], moved[channel - start])
        left[stop:] -= factor[start:stop, stop:].T @ moved
    return chosen
