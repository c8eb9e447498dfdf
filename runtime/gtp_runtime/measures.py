"""Differences between outputs for each image, from which parity and accuracy are computed."""

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the class probabilities (..., classes), in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def divergence(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of each image's class probabilities from the expected ones, (N,) float64 in nats."""
    left, right = log_softmax(expected), log_softmax(actual)
    return np.asarray((np.exp(left) * (left - right)).sum(1))


def cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine similarity of each image's logits or features, (N,)."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(1) / np.maximum(norms, 1e-30))


def hits(logits: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """Whether each image's class is among its ``k`` best, (N,) bool."""
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return np.asarray((best == labels[:, None]).any(1))


def standard_error(values: np.ndarray) -> float | None:
    """Standard error of the mean of (N,) values; None for fewer than two."""
    if len(values) < 2:
        return None
    return float(np.std(values.astype(np.float64), ddof=1) / np.sqrt(len(values)))
