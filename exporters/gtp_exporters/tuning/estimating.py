"""Estimates latency before anything is exported, from what was measured so far."""

import numpy as np

from gtp_exporters.tuning.results import Result
from gtp_models.methods.gtp.selections import SELECTIONS
from gtp_models.plan import Plan

PRIOR = 0.02  # weight of what is believed at first, in measurements
LEAST_ERROR = 0.01  # of the ratio: latency is not measured more closely than that


class Estimator:
    """Ratio of latency to the dense baseline's, linear in what a schedule does; at first the ratio of MACs.

    Args:
        precisions: those that are tried; each may cost something of its own.
    """

    def __init__(self, precisions: tuple[str, ...]) -> None:
        self._precisions = precisions
        self._known: dict[str, tuple[np.ndarray, float]] = {}
        believed = np.zeros(5 + len(precisions))
        believed[1] = 1.0
        self._believed = self._weights = believed
        self._error = 0.1

    def learn(self, result: Result) -> None:
        """Take note of a measurement."""
        assert result.timing is not None
        self._known[result.timing.key] = (self._features(result), result.timing.ratio)
        rows = np.stack([features for features, _ in self._known.values()])
        ratios = np.array([ratio for _, ratio in self._known.values()])
        missed = ratios - rows @ self._believed
        square = rows.T @ rows + PRIOR * np.eye(rows.shape[1])
        self._weights = self._believed + np.linalg.solve(square, rows.T @ missed)
        spare = len(ratios) - rows.shape[1]
        if spare > 0:
            self._error = max(LEAST_ERROR, float(np.sqrt(((ratios - rows @ self._weights) ** 2).sum() / spare)))

    def estimate(self, result: Result) -> float:
        """Return an estimate of the ratio."""
        return float(self._features(result) @ self._weights)

    @property
    def error(self) -> float:
        """Standard error of an estimate."""
        return self._error

    def _features(self, result: Result) -> np.ndarray:
        config = result.proposal.settings
        reducing = sum(map(bool, result.num_prop)) / len(result.num_prop)
        needs_map = SELECTIONS[config.selection].needs == "map"
        return np.array(
            [
                1.0,
                result.macs_ratio,
                reducing * needs_map,
                reducing * (not needs_map),
                config.sparsity < 1,
                *(result.precision == name for name in self._precisions),
            ],
            float,
        )


def macs_ratio(plan: Plan) -> float:
    """Return the MACs of backbone and method over the dense model's."""
    return plan.total / plan.dense
