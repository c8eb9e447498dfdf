"""The search space: from Optuna's parameters to GTP's settings."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from gtp_exporters.options import MAX_TOPK
from gtp_models.methods.gtp.config import PRESETS, GTPConfig
from gtp_models.methods.gtp.propagations import PROPAGATIONS
from gtp_models.methods.gtp.selections import SELECTIONS
from gtp_models.methods.settings import LayerShape, ModelShape
from gtp_models.schedules import TILES, TILES_IN, Amounts, rounded, spread

SPARSITIES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
STARTS = (0.25, 0.45, 0.65)  # shares of the tokens that are removed in the first trials of each preset
SCALES = (1.0, 0.7, 1.3)  # of the tokens that a fitted plan removes, in the first trials of all
MOST = 0.85  # of the tokens, that a trial removes
PLACEMENTS = ("each", "spread")  # a number for each layer, or steps that are spread over layers


class Suggests(Protocol):
    """What an Optuna trial offers, as far as it is used here."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Return one of the choices."""
        ...

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return a whole number from low to high."""
        ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number from low to high."""
        ...


@dataclass(frozen=True)
class Proposal:
    """What a trial tries: settings with the number of removed tokens for each layer, and the precision of the graph."""

    settings: GTPConfig
    precision: str


@dataclass(frozen=True)
class Space:
    """What may be tried on a model.

    Attributes:
        shape: the properties of the model.
        num_neighbours: of all trials.
        precisions: of the graph.
        presets, selections, alignments, sparsities: choices of these settings.
        fitted: numbers of tokens that leave in each layer, to begin with; None without.
    """

    shape: ModelShape
    num_neighbours: int
    precisions: tuple[str, ...]
    presets: tuple[str, ...]
    selections: tuple[str, ...]
    alignments: tuple[int, ...]
    sparsities: tuple[float, ...]
    fitted: Amounts | None = None

    def propose(self, trial: Suggests) -> Proposal:
        """Return what Optuna proposes."""
        preset = trial.suggest_categorical("preset", self.presets)
        values: dict[str, Any] = {"num_prop": self._amounts(trial), "num_neighbours": self.num_neighbours}
        values["selection"] = trial.suggest_categorical(f"{preset}_selection", self.selections)
        if PROPAGATIONS[PRESETS[preset]["propagation"]].uses_alpha:
            values["alpha"] = round(trial.suggest_float("alpha", 0.05, 1.0, log=True), 3)
        if len(self.sparsities) > 1 and SELECTIONS[values["selection"]].needs == "map":
            values["sparsity"] = trial.suggest_categorical("sparsity", self.sparsities)
        precision = self.precisions[0]
        if len(self.precisions) > 1:
            precision = trial.suggest_categorical("precision", self.precisions)
        return Proposal(GTPConfig.preset(preset, **values), precision)

    @property
    def most(self) -> float:
        """The largest share of the patches that a trial may remove: no less than the fitted plan does."""
        return max(MOST, sum(self.fitted or ()) / self.shape.patches)

    def starts(self) -> list[dict[str, Any]]:
        """Return parameters to begin with: the fitted plan, and both presets in layers that they are meant for."""
        return [*self._fitted_starts(), *self._spread_starts()]

    def _fitted_starts(self) -> list[dict[str, Any]]:
        if self.fitted is None:
            return []
        start, share = self.shape.patches + self.shape.num_prefix, sum(self.fitted) / self.shape.patches
        tiles = [tile for tile in self.alignments if rounded(self.fitted, start, tile) == self.fitted]
        layers = {_layer_name(layer): amount for layer, amount in enumerate(self.fitted)}
        return [
            self._start("measured", min(self.most, scale * share))
            | {"placement": "each", "alignment": max(tiles, default=1)}
            | layers
            for scale in SCALES
        ]

    def _spread_starts(self) -> list[dict[str, Any]]:
        depth = self.shape.depth
        layers = {"paper": (depth, 0, 1.0)}
        return [
            self._start(preset, removed)
            | dict(
                zip(
                    ("steps", "first", "span"),
                    layers.get(preset, (min(2, depth), min(1, depth // 2), 0.4)),
                    strict=True,
                )
            )
            | {"placement": "spread", "tilt": 0.0, "alignment": self.alignments[-1 if preset != "paper" else 0]}
            for removed in STARTS
            for preset in self.presets
            if PRESETS[preset]["selection"] in self.selections
        ]

    def _start(self, preset: str, removed: float) -> dict[str, Any]:
        return {
            "preset": preset,
            f"{preset}_selection": PRESETS[preset]["selection"],
            "removed": removed,
            "alpha": 0.1,
            "sparsity": 1.0,
            "precision": self.precisions[0],
        }

    def _amounts(self, trial: Suggests) -> Amounts:
        removed = trial.suggest_float("removed", 0.05, self.most) * self.shape.patches
        is_each = trial.suggest_categorical("placement", PLACEMENTS) == "each"
        amounts = spread(self._each(trial) if is_each else self._spread(trial), removed)
        multiple = trial.suggest_categorical("alignment", self.alignments)
        return amounts if multiple == 1 else rounded(amounts, self.shape.patches + self.shape.num_prefix, multiple)

    def _each(self, trial: Suggests) -> list[float]:
        """Return each layer's share, drawn for each; below 1 it is none, so that half of the layers take none."""
        most = self.shape.patches
        weights = [trial.suggest_int(_layer_name(layer), -most, most) for layer in range(self.shape.depth)]
        return [float(max(0, weight)) for weight in weights] if max(weights) > 0 else [1.0] * len(weights)

    def _spread(self, trial: Suggests) -> list[float]:
        depth = self.shape.depth
        steps = trial.suggest_int("steps", 1, depth)
        first = trial.suggest_int("first", 0, depth // 2)
        last = first + round(trial.suggest_float("span", 0.0, 1.0) * (depth - 1 - first))
        return _weights(steps, first, last, depth, trial.suggest_float("tilt", -1.0, 1.0))


def _layer_name(layer: int) -> str:
    return f"layer_{layer}"


def _weights(steps: int, first: int, last: int, depth: int, tilt: float) -> list[float]:
    """Return each layer's share: ``steps`` layers from first to last, tilted towards the first (-1) or the last (1)."""
    count = min(steps, last - first + 1)
    chosen = [first + round(step * (last - first) / max(1, count - 1)) for step in range(count)]
    weights = [0.0] * depth
    for step, layer in enumerate(chosen):
        weights[layer] = 1 + tilt * (2 * step / (count - 1) - 1) if count > 1 else 1.0
    return weights


def make_space(
    shape: ModelShape, num_neighbours: int, precisions: tuple[str, ...], fitted: Amounts | None = None
) -> Space:
    """Return what may be tried on a model of this shape, so that TensorRT, the strictest target, can build it.

    Args:
        shape: the properties of the model.
        num_neighbours: of all trials.
        precisions: of the graph.
        fitted: numbers of tokens that leave in each layer, to begin with.
    """
    tokens = shape.patches + shape.num_prefix
    selections = [name for name in SELECTIONS.names() if not SELECTIONS[name].is_fixed]
    known = tuple(name for name in selections if shape.has_class_token or not SELECTIONS[name].needs_class_token)
    tiles = tuple(tile for tile in reversed(TILES) if tile * TILES_IN <= tokens)
    layer = LayerShape(shape, tokens, 1)
    sparsities = tuple(share for share in SPARSITIES if GTPConfig(sparsity=share).topk(layer) <= MAX_TOPK)
    return Space(shape, num_neighbours, precisions, tuple(PRESETS), known, (1, *tiles), sparsities, fitted)


def token_counts(amounts: Amounts, start: int) -> list[int]:
    """Return the tokens before each layer and after the last."""
    counts = [start]
    for amount in amounts:
        counts.append(counts[-1] - amount)
    assert all(before >= after for before, after in pairwise(counts))
    return counts
