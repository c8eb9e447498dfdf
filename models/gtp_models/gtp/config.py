"""The settings of GTP, checked when they are made and again against a model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any, Literal, get_args

from gtp_models.errors import ConfigError

Selection = Literal[
    "CLSAttnMean",
    "CLSAttnMax",
    "IMGAttnMean",
    "IMGAttnMax",
    "DiagAttnMean",
    "DiagAttnMax",
    "MixedAttnMean",
    "MixedAttnMax",
    "SumAttnMax",
    "CosSimMean",
    "CosSimMax",
]
Propagation = Literal["GraphProp", "None", "Mean"]
Graph = Literal["Spatial", "Semantic", "Mixed", "None"]
Threshold = Literal["exact", "calibrated"]

_CHOICES = {
    "selection": get_args(Selection),
    "propagation": get_args(Propagation),
    "graph": get_args(Graph),
    "threshold": get_args(Threshold),
}


@dataclass(frozen=True)
class GTPConfig:
    """Settings of Graph-based Token Propagation (arXiv 2311.03035, section 3), under the authors' names.

    Attributes:
        num_prop: tokens that leave in every layer, or one number a layer; 0 leaves a layer as it is.
        sparsity: share of attention entries that stay, in (0, 1]; 1 keeps all (section 3.4).
        alpha: how much of a propagated token its neighbours receive (equation 6), at least 0.
        num_neighbours: semantic neighbours of a token, at least 1.
        token_scale: let a token that received others weigh more as a key.
        selection: the score by which tokens stay; the ending says how heads are reduced.
        propagation: "GraphProp", "None" (pruning) or "Mean" (the mean joins as one token).
        graph: whom a token hands its information to; unused unless propagation is "GraphProp".
        threshold: how the sparsity threshold is found; "exact" sorts each image's own attention, "calibrated"
            takes it from the mean and spread of its logarithm and ``calibration``.
        calibration: z for each head of each layer, () for layers that do not reduce; ``calibrate`` measures it.

    Raises:
        ConfigError: a value that is not allowed; the message says why and what would do.
    """

    num_prop: int | tuple[int, ...] = 8
    sparsity: float = 1.0
    alpha: float = 0.1
    num_neighbours: int = 8
    token_scale: bool = True
    selection: Selection = "MixedAttnMax"
    propagation: Propagation = "GraphProp"
    graph: Graph = "Mixed"
    threshold: Threshold = "exact"
    calibration: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.num_prop, Sequence):
            object.__setattr__(self, "num_prop", tuple(self.num_prop))
        if self.calibration is not None:
            object.__setattr__(self, "calibration", tuple(tuple(layer) for layer in self.calibration))
        self._check_numbers()
        self._check_choices()

    def _check_numbers(self) -> None:
        amounts = self.num_prop if isinstance(self.num_prop, tuple) else (self.num_prop,)
        if not amounts or not all(_is_int(amount) and amount >= 0 for amount in amounts):
            raise ConfigError(
                f"num_prop={self.num_prop!r}: give a whole number of tokens, 0 or more, or one a layer (4,8,…)"
            )
        if not _is_number(self.sparsity) or not 0 < self.sparsity <= 1:
            raise ConfigError(
                f"sparsity={self.sparsity!r} is outside (0, 1]: it is the share of attention that stays; 1 keeps all"
            )
        if not _is_number(self.alpha) or not 0 <= self.alpha < float("inf"):
            raise ConfigError(f"alpha={self.alpha!r}: give a finite number of at least 0 (the paper uses 0.1 to 0.4)")
        if not _is_int(self.num_neighbours) or self.num_neighbours < 1:
            raise ConfigError(
                f"num_neighbours={self.num_neighbours!r}: give at least 1 (graph='Spatial' uses no semantic neighbours)"
            )

    def _check_choices(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r} is unknown: choose one of {', '.join(choices)}")
        if not isinstance(self.token_scale, bool):
            raise ConfigError(f"token_scale={self.token_scale!r}: give True or False")
        if self.graph == "None" and self.propagation == "GraphProp":
            raise ConfigError(
                "propagation='GraphProp' needs a graph: choose graph='Mixed', or propagation='None' to prune"
            )

    def schedule(self, depth: int) -> tuple[int, ...]:
        """Return the number of tokens that leave in each of ``depth`` layers.

        Raises:
            ConfigError: ``num_prop`` names another number of layers.
        """
        if isinstance(self.num_prop, int):
            return (self.num_prop,) * depth
        if len(self.num_prop) != depth:
            raise ConfigError(
                f"num_prop has {len(self.num_prop)} entries, but the model has {depth} layers: "
                f"give {depth} entries, or one number for all"
            )
        return self.num_prop

    def counts(self, depth: int, tokens: int) -> list[int]:
        """Return how many image tokens stand before each layer and after the last: depth + 1 numbers.

        Raises:
            ConfigError: the schedule does not fit ``depth`` layers and ``tokens`` image tokens.
        """
        counts = [tokens]
        for amount in self.schedule(depth):
            joined = 1 if self.propagation == "Mean" and amount else 0
            counts.append(counts[-1] - amount + joined)
            if counts[-1] < 1 or amount >= counts[-2]:
                raise ConfigError(
                    f"num_prop={self.num_prop} takes {amount} of the {counts[-2]} image tokens left in layer "
                    f"{len(counts) - 2} (of 0 to {depth - 1}): at least one must stay; "
                    f"with one number for all layers at most {self._largest(depth, tokens)} fits"
                )
        if self.uses_semantics and self.num_neighbours >= tokens:
            raise ConfigError(
                f"num_neighbours={self.num_neighbours}, but the model has {tokens} image tokens: "
                f"give at most {tokens - 1}, or use graph='Spatial'"
            )
        return counts

    def _largest(self, depth: int, tokens: int) -> int:
        if self.propagation == "Mean":
            return max(1, 1 + (tokens - 2) // depth)
        return (tokens - 1) // depth

    @property
    def uses_graph(self) -> bool:
        """Whether tokens hand their information on along a graph."""
        return self.propagation == "GraphProp"

    @property
    def uses_semantics(self) -> bool:
        """Whether the graph has semantic edges."""
        return self.uses_graph and self.graph in ("Semantic", "Mixed")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; ``GTPConfig(**values)`` reads them back."""
        values = asdict(self)
        if isinstance(self.num_prop, tuple):
            values["num_prop"] = list(self.num_prop)
        if self.calibration is not None:
            values["calibration"] = [list(layer) for layer in self.calibration]
        return values


def _is_int(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
