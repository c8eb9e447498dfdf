"""Differences between outputs for each image, from which parity and accuracy are computed."""

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the class probabilities (..., classes), in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def as_classes(logits: np.ndarray) -> np.ndarray:
    """Return (N, classes) logits; (N, 1) ones become two classes of the same probabilities: absent and present."""
    return logits if logits.shape[1] != 1 else np.concatenate([np.zeros_like(logits), logits], 1)


def probabilities(logits: np.ndarray, activation: str = "softmax") -> np.ndarray:
    """Return the probability of each class, (N, classes) float64, of (N, classes) logits; one logit is two classes.

    Args:
        logits: of the images.
        activation: "softmax" (one class an image), or "sigmoid" (each class by itself).
    """
    if activation == "sigmoid" and logits.shape[1] != 1:
        return np.asarray(np.exp(-np.logaddexp(0, -logits.astype(np.float64))))
    return np.asarray(np.exp(log_softmax(as_classes(logits))))


def divergence(expected: np.ndarray, actual: np.ndarray, activation: str = "softmax") -> np.ndarray:
    """Kullback-Leibler divergence of each image's class probabilities from the expected ones, (N,) float64 in nats.

    With "sigmoid" each class is a decision by itself, and their divergences add up.
    """
    if activation == "sigmoid" and expected.shape[1] != 1:
        wide, other = expected.astype(np.float64), actual.astype(np.float64)
        present, absent = -np.logaddexp(0, -wide), -np.logaddexp(0, wide)
        apart = np.exp(present) * (present + np.logaddexp(0, -other))
        return np.asarray((apart + np.exp(absent) * (absent + np.logaddexp(0, other))).sum(1))
    left, right = log_softmax(as_classes(expected)), log_softmax(as_classes(actual))
    return np.asarray((np.exp(left) * (left - right)).sum(1))


def agree(left: np.ndarray, right: np.ndarray, activation: str = "softmax") -> np.ndarray:
    """Whether each image's answer is the same, (N,) bool: the best class, or with "sigmoid" all classes above 0.5."""
    if activation == "sigmoid" or left.shape[1] == 1:
        return np.asarray(((left > 0) == (right > 0)).all(1))
    return np.asarray(left.argmax(1) == right.argmax(1))


def cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine similarity of each image's logits or features, (N,)."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(1) / np.maximum(norms, 1e-30))


def hits(logits: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """Whether each image's class is among its ``k`` best, (N,) bool."""
    best = np.argsort(-as_classes(logits), axis=1, kind="stable")[:, :k]
    return np.asarray((best == labels[:, None]).any(1))


def standard_error(values: np.ndarray) -> float | None:
    """Standard error of the mean of (N,) values; None for fewer than two."""
    if len(values) < 2:
        return None
    return float(np.std(values.astype(np.float64), ddof=1) / np.sqrt(len(values)))
