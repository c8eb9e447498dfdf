"""Which images keep the same tokens as the reference, and how close a tie was if they do not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gtp_runtime.errors import ManifestError


@dataclass(frozen=True)
class LayerParity:
    """One layer that removes tokens: the share of images whose kept sets agree, and the score gaps of the others.

    Attributes:
        layer: index of the layer, from 0.
        agreement: share of images, 0..1, whose kept sets agree after this layer.
        receivers: of the images whose kept sets agree up to this layer, the share that merges every token into the
            same one; None if tokens have no single receiver, or if no image agrees.
        overlap: mean share of tokens that both remove in this layer, corrected for chance: 1 if they are identical,
            0 if the overlap is that of two random choices.
        smallest_gap: the smallest score gap among all images.
        flipped_gap: the largest score gap among images whose kept sets first differ here; None if there are none.
    """

    layer: int
    agreement: float
    overlap: float
    smallest_gap: float
    flipped_gap: float | None
    receivers: float | None = None


@dataclass(frozen=True)
class KeptSets:
    """What tells which tokens are kept.

    Attributes:
        propagated: a file's trace output, (N, all that left) ids in the order in which they left; None where the file
            has none (exported with --no-trace).
        expected: the reference's, one (N, P) array a layer.
        gaps: the reference's score gaps, one (N,) array a layer.
        tokens: image tokens before the first layer.
        received_by: a file's second trace output, for each of ``propagated`` the token that it was merged into; None
            where there is none.
        expected_receivers: the reference's, one array a layer.

    Raises:
        ManifestError: arrays that do not fit each other.
    """

    propagated: np.ndarray | None
    expected: Sequence[np.ndarray]
    gaps: Sequence[np.ndarray]
    tokens: int
    received_by: np.ndarray | None = None
    expected_receivers: Sequence[np.ndarray] | None = None

    def __post_init__(self) -> None:
        if self.propagated is None:
            return
        if self.received_by is not None and self.received_by.shape != self.propagated.shape:
            raise ManifestError(
                f"the file outputs {self.propagated.shape} removed tokens but {self.received_by.shape} receivers: "
                "export it again"
            )
        given, expected = self.propagated.shape, [ids.shape for ids in self.expected]
        if given[1:] != (sum(shape[1] for shape in expected),) or any(shape[0] != given[0] for shape in expected):
            raise ManifestError(
                f"the file outputs {given} removed tokens, but the reference has {expected}: export both again"
            )

    @property
    def reduces(self) -> bool:
        """Whether any token leaves, so that there are kept sets to compare."""
        return any(ids.shape[1] for ids in self.expected)

    def agreement(self) -> tuple[np.ndarray, np.ndarray, list[LayerParity]]:
        """Return which images (N,) agree in every layer on the kept sets, which of them on every receiver too, and each
        layer that reduces; ``propagated`` is needed.

        The tokens that left so far tell which are kept: they are compared, as sets, after every layer.
        """
        assert self.propagated is not None
        agree, layers, start = np.ones(len(self.propagated), bool), [], 0
        merged = agree.copy()
        everything = np.concatenate(list(self.expected), 1)
        for layer, ids in enumerate(self.expected):
            end = start + ids.shape[1]
            if end == start:
                continue
            same = (np.sort(self.propagated[:, :end], 1) == np.sort(everything[:, :end], 1)).all(1)
            flipped = self.gaps[layer][agree & ~same]
            largest = float(flipped.max()) if flipped.size else None
            overlap = _overlap(self.propagated[:, start:end], ids, self.tokens - start)
            agree &= same
            alike = self._same_receivers(layer, start, end)
            merged &= agree & alike
            receivers = float(alike[agree].mean()) if self._names_receivers and agree.any() else None
            gap = float(self.gaps[layer].min())
            layers.append(LayerParity(layer, float(same.mean()), overlap, gap, largest, receivers))
            start = end
        return agree, merged, layers

    @property
    def _names_receivers(self) -> bool:
        return self.received_by is not None and self.expected_receivers is not None

    def _same_receivers(self, layer: int, start: int, end: int) -> np.ndarray:
        """Return for which images (N,) every token that left is merged into the same one; all, where none is named."""
        assert self.propagated is not None
        if self.received_by is None or self.expected_receivers is None:
            return np.ones(len(self.propagated), bool)
        found = _by_id(self.propagated[:, start:end], self.received_by[:, start:end])
        return np.asarray((found == _by_id(self.expected[layer], self.expected_receivers[layer])).all(1))


def _by_id(left: np.ndarray, receivers: np.ndarray) -> np.ndarray:
    """Return receivers in the order of the ids of the tokens that left."""
    return np.take_along_axis(receivers, np.argsort(left, axis=1, kind="stable"), 1)


def _overlap(found: np.ndarray, expected: np.ndarray, tokens: int) -> float:
    """Mean share of two (N, P) choices among ``tokens`` that is the same, corrected for chance."""
    share = float((found[:, :, None] == expected[:, None, :]).any(1).mean())
    chance = min(expected.shape[1] / tokens, 0.99) if tokens > 0 else 0.0
    return (share - chance) / (1 - chance)
