"""Nearest neighbours of features in one reference set: k-NN classes, retrieval, and which neighbours stay.

The reference set is the dense model's features of the images themselves, of at most ``MOST`` of them, spread over the
folder. Each image is looked up among the others: by its dense features, and by those of the reduced model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gtp_runtime.accuracy import DENSE, Scores

MOST = 4096  # images of a reference set
NEIGHBOURS = 10  # that vote, and whose agreement is measured
SHARPNESS = 1 / 0.07  # a neighbour's vote is exp of its cosine times this (Wu et al. 2018, arXiv 1805.01978)
RECALLS = (1, 5)  # k of recall@k
AGREEMENT = "neighbour agreement"


@dataclass(frozen=True)
class Gallery:
    """A reference set.

    Attributes:
        features: (M, dim) float32 of the dense model, of length 1.
        names: of the images, as ``ImageSet.names`` has them.
        classes: (M,) whole numbers from 0; None where they are unknown.
    """

    features: np.ndarray
    names: tuple[bytes, ...]
    classes: np.ndarray | None

    @staticmethod
    def of(features: np.ndarray, names: Sequence[bytes], classes: np.ndarray | None) -> "Gallery":
        """Return that of (M, dim) features."""
        return Gallery(unit(features), tuple(map(bytes, names)), classes)

    def scores(
        self, features: np.ndarray, dense: np.ndarray | None, names: Sequence[bytes], classes: np.ndarray | None
    ) -> Scores:
        """Look images up by their features.

        Args:
            features, dense: (N, dim) of both models; None where there is no dense one.
            names: of the images: none finds itself.
            classes: (N,) of them; None where they are unknown.

        Returns:
            ``top1`` (k-NN), "recall@k" and "mAP" with classes, the same of the dense model, and the share of the
            nearest neighbours that stay. An image whose class no other one has scores 0.
        """
        own = self._own(names)
        order = self._ranked(features, own)
        ranked = {"": order} if dense is None else {"": order, DENSE: self._ranked(dense, own)}
        scores: Scores = {}
        if classes is not None and self.classes is not None:
            for prefix, places in ranked.items():
                scores |= self._retrieval(places, own, classes, prefix)
            scores["top1"] = self._votes(features, order) == classes
            if dense is not None:
                scores["dense_top1"] = self._votes(dense, ranked[DENSE]) == classes
                scores["top1_drop"] = scores["dense_top1"].astype(np.float64) - scores["top1"]
        if dense is not None:
            scores[AGREEMENT] = self._agreement(order, ranked[DENSE])
        return scores

    def _own(self, names: Sequence[bytes]) -> np.ndarray:
        """Return the row of each image in the set; -1 for those that are not in it."""
        rows = {name: row for row, name in enumerate(self.names)}
        return np.array([rows.get(bytes(name), -1) for name in names])

    def _ranked(self, features: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return the rows of the set, the nearest first, for each image; its own comes last."""
        cosines = unit(features) @ self.features.T
        listed = own >= 0
        cosines[np.flatnonzero(listed), own[listed]] = -np.inf
        return np.argsort(-cosines, axis=1, kind="stable")

    def _votes(self, features: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Return the class that the nearest neighbours of each image vote for."""
        assert self.classes is not None
        nearest = order[:, : min(NEIGHBOURS, len(self.names) - 1)]
        cosines = np.einsum("nd,nkd->nk", unit(features), self.features[nearest])
        votes = np.zeros((len(nearest), int(self.classes.max()) + 1))
        rows = np.arange(len(nearest))[:, None]
        np.add.at(votes, (rows, self.classes[nearest]), np.exp(SHARPNESS * (cosines - 1)))
        return np.asarray(votes.argmax(1))

    def _retrieval(self, order: np.ndarray, own: np.ndarray, classes: np.ndarray, prefix: str) -> Scores:
        """Return whether one of the class is among the first k, and the average precision, for each image."""
        assert self.classes is not None
        relevant = (self.classes[order] == classes[:, None]) & (order != own[:, None])
        precision = np.cumsum(relevant, 1) / np.arange(1, relevant.shape[1] + 1)
        average = (precision * relevant).sum(1) / np.maximum(1, relevant.sum(1))
        recalls = {f"{prefix}recall@{k}": relevant[:, :k].any(1) for k in RECALLS}
        return {**recalls, f"{prefix}mAP": average}

    def _agreement(self, order: np.ndarray, dense: np.ndarray) -> np.ndarray:
        count = max(1, min(NEIGHBOURS, len(self.names) - 1))
        pairs = zip(order[:, :count], dense[:, :count], strict=True)
        return np.array([len(np.intersect1d(one, other)) / count for one, other in pairs])


def unit(features: np.ndarray) -> np.ndarray:
    """Return (N, dim) features with length 1, float32."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-30), np.float32)
