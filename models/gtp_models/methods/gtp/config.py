"""The settings of GTP. They are checked when they are made, and again for a model."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from gtp_models.errors import ConfigError
from gtp_models.methods import check_names
from gtp_models.methods.settings import LayerShape, ModelShape, Settings, is_int, is_number

if TYPE_CHECKING:
    from gtp_models.methods.gtp.axes import Graph, Propagation, Selection
    from gtp_models.methods.gtp.fixed import Moves

THRESHOLDS = ("exact", "calibrated")
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"selection": "MixedAttnMax", "graph": "Mixed", "propagation": "GraphProp"},
    "measured": {
        "selection": "Regeneration",
        "graph": "Nearest",
        "propagation": "MergeNorm",
        "schedule": "safe+aligned",
    },
}


@dataclass(frozen=True)
class GTPConfig(Settings):
    """Settings of Graph-based Token Propagation (arXiv 2311.03035, section 3), under the authors' names.

    Attributes:
        num_prop: tokens to remove in every layer, or one number per layer; 0 keeps all tokens of a layer.
        sparsity: share of attention entries to keep, in (0, 1] (section 3.4).
        alpha: factor by which a removed token is added to its neighbours (equation 6), at least 0.
        num_neighbours: number of semantic neighbours of a token, at least 1.
        token_scale: give tokens that received others more weight as keys, where the propagation lets them receive.
        selection: the score by which tokens are kept, an entry of ``gtp.selections``.
        propagation: what the kept tokens receive, an entry of ``gtp.propagations``.
        graph: which tokens are neighbours, an entry of ``gtp.graphs``; unused if the propagation uses no graph.
        threshold: how the sparsity threshold is found: "exact" sorts each image's attention; "calibrated" computes
            ``exp(mean + z * std)`` of its logarithm, with z from ``calibration``.
        calibration: z for each head of each layer, () for layers that remove no tokens; ``calibrate`` measures it.
        moves: for ``selection="Fixed"``, of every layer: (patch that leaves, patch that receives it), patches by number
            from 0; ``calibrate`` fits them to images.
        keep, macs, schedule: see ``Settings``.

    Raises:
        ConfigError: an invalid value; the message says why and what is allowed.

    >>> GTPConfig(num_prop=8).selection  # as published
    'MixedAttnMax'
    >>> GTPConfig.measured(keep=0.74).schedule
    'safe+aligned'
    """

    sparsity: float = 1.0
    alpha: float = 0.1
    num_neighbours: int = 8
    token_scale: bool = True
    selection: str = "MixedAttnMax"
    propagation: str = "GraphProp"
    graph: str = "Mixed"
    threshold: str = "exact"
    calibration: tuple[tuple[float, ...], ...] | None = None
    moves: "Moves | None" = None

    name: ClassVar[str] = "gtp"
    summary: ClassVar[str] = "Graph-based Token Propagation (arXiv 2311.03035)"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_numbers()
        self._check_choices()
        for name, kind in (("sparsity", float), ("alpha", float), ("num_neighbours", int)):  # numpy's become Python's
            object.__setattr__(self, name, kind(getattr(self, name)))
        if self.calibration is not None:
            object.__setattr__(self, "calibration", tuple(tuple(map(float, layer)) for layer in self.calibration))
        if self.moves is not None:
            object.__setattr__(self, "moves", _moves(self.moves))

    def _check_numbers(self) -> None:
        if not is_number(self.sparsity) or not 0 < self.sparsity <= 1:
            raise ConfigError(
                f"sparsity={self.sparsity!r} is outside (0, 1]: the share of the attention map to keep; 1 keeps all"
            )
        if not is_number(self.alpha) or not 0 <= self.alpha < float("inf"):
            raise ConfigError(f"alpha={self.alpha!r}: give a finite number of at least 0 (the paper uses 0.1 to 0.4)")
        if not is_int(self.num_neighbours) or self.num_neighbours < 1:
            raise ConfigError(
                f"num_neighbours={self.num_neighbours!r}: give at least 1 "
                f"({graphs_with('uses_neighbours', False)} uses none)"
            )

    def _check_choices(self) -> None:
        selection, graph, propagation = self.axes
        if self.threshold not in THRESHOLDS:
            raise ConfigError(f"threshold={self.threshold!r} is unknown: choose one of {', '.join(THRESHOLDS)}")
        if not isinstance(self.token_scale, bool):
            raise ConfigError(f"token_scale={self.token_scale!r}: give True or False")
        if propagation.one_receiver and not graph.one_receiver:
            raise ConfigError(
                f"propagation={self.propagation!r} needs a graph that gives each token one receiver, and "
                f"graph={self.graph!r} does not: choose {graphs_with('one_receiver')}"
            )
        if propagation.merges and not self.token_scale:
            raise ConfigError(f"propagation={self.propagation!r} stores sizes in token_scale: leave it on")
        if propagation.uses_graph and graph.edges is None:
            raise ConfigError(
                f"propagation={self.propagation!r} needs a graph: choose {graphs_with('edges')}, "
                "or propagation='None' to prune"
            )
        if selection.is_fixed and propagation.joins:
            raise ConfigError(
                f"propagation={self.propagation!r} adds a token, which has no patch for fixed moves to name: with "
                f"selection={self.selection!r} choose another propagation"
            )

    @classmethod
    def preset(cls, preset: str, **settings: Any) -> "GTPConfig":
        """Return a preset ("paper" or "measured") with further settings, which override it.

        Raises:
            ConfigError: an unknown preset, or a setting that is not valid.
        """
        if preset not in PRESETS:
            raise ConfigError(f"preset={preset!r} is unknown: choose one of {', '.join(PRESETS)}")
        defaults = dict(PRESETS[preset])
        if isinstance(settings.get("num_prop"), tuple | list):  # gives the layers itself
            defaults.pop("schedule", None)
        settings = defaults | settings
        check_names(cls, settings)
        return cls(**settings)

    @classmethod
    def paper(cls, **settings: Any) -> "GTPConfig":
        """Return GTP as published: MixedAttnMax, Mixed graph, GraphProp, in every layer."""
        return cls.preset("paper", **settings)

    @classmethod
    def measured(cls, **settings: Any) -> "GTPConfig":
        """Return GTP with measured regeneration: Regeneration, Nearest, MergeNorm, in a few layers.

        Token counts suit the tiles of runtimes (``+aligned``).
        ``num_prop`` sets the budget: the MACs that removing this number in every layer would leave.
        """
        return cls.preset("measured", **settings)

    def described(self) -> dict[str, Any]:
        axes = {"selection": self.selection, "graph": self.graph, "propagation": self.propagation}
        presets = [{"preset": name} for name, values in PRESETS.items() if axes.items() <= values.items()]
        return (presets[0] if presets else {}) | self.to_dict()

    @property
    def axes(self) -> "tuple[Selection, Graph, Propagation]":
        """The entries that the settings name; the graph is that of ``graph``, whether it is used or not."""
        from gtp_models.methods.gtp.graphs import GRAPHS  # torch
        from gtp_models.methods.gtp.propagations import PROPAGATIONS
        from gtp_models.methods.gtp.selections import SELECTIONS

        return SELECTIONS[self.selection], GRAPHS[self.graph], PROPAGATIONS[self.propagation]

    @property
    def joins(self) -> int:
        return self.axes[2].joins

    @property
    def merges(self) -> bool:
        return self.axes[2].merges

    @property
    def first_row(self) -> bool:
        """Whether the selection reads only the first row of the attention map, which is then computed separately."""
        return self.sparsity == 1 and self.axes[0].needs == "class_row"

    @property
    def needs_calibration(self) -> bool:
        return self.needs_thresholds or self.needs_moves

    @property
    def needs_thresholds(self) -> bool:
        """Whether thresholds are still to be calibrated."""
        return self.threshold == "calibrated" and self.sparsity < 1 and self.calibration is None

    @property
    def needs_moves(self) -> bool:
        """Whether the tokens that leave are still to be fitted."""
        return self.axes[0].is_fixed and self.moves is None

    def uncalibrated(self) -> "GTPConfig":
        selection = "Regeneration" if self.needs_moves else self.selection
        return replace(self, selection=selection, sparsity=1.0 if self.needs_thresholds else self.sparsity)

    @property
    def scales(self) -> bool:
        """Whether a token's weight as a key can differ from 1; where none can, the graph computes none."""
        grows = self.axes[2].scales and not (self.axes[2].uses_alpha and self.alpha == 0)
        return self.token_scale and grows

    @property
    def uses_graph(self) -> bool:
        """Whether the propagation uses the graph."""
        return self.axes[2].uses_graph

    @property
    def uses_neighbours(self) -> bool:
        """Whether the settings use ``num_neighbours``."""
        return self.uses_graph and self.axes[1].uses_neighbours

    def unused(self) -> dict[str, str]:
        named = f"propagation={self.propagation!r}"
        no_graph = f"{named} uses no graph"
        unused = {} if self.uses_graph else {"graph": no_graph}
        if not self.axes[2].uses_alpha:
            unused["alpha"] = f"{named} does not use it"
        if not self.axes[2].scales:
            unused["token_scale"] = f"{named} leaves the scale of every token at 1"
        if not self.uses_neighbours:
            unused["num_neighbours"] = f"graph={self.graph!r} does not use it" if self.uses_graph else no_graph
        if self.threshold == "calibrated" and self.sparsity == 1:
            unused["threshold"] = "sparsity is 1, so there is no threshold to calibrate: give a sparsity below 1"
        if self.moves is not None and not self.axes[0].is_fixed:
            unused["moves"] = f"selection={self.selection!r} chooses by the image: they are of Fixed"
        return unused

    def check(self, shape: ModelShape) -> None:
        if self.axes[0].needs_class_token and not shape.has_class_token:
            raise ConfigError(
                f"selection={self.selection!r} needs a class token, and this model has none: "
                f"use {_selections_without_class_token()}"
            )
        if self.uses_neighbours and self.num_neighbours >= shape.patches:
            raise ConfigError(
                f"num_neighbours={self.num_neighbours}, but the model has {shape.patches} image tokens: "
                f"give at most {shape.patches - 1}, or use {graphs_with('uses_neighbours', False)}"
            )
        self._check_calibration(shape)
        self._check_moves(shape)

    def _check_moves(self, shape: ModelShape) -> None:
        if not self.axes[0].is_fixed:
            return
        if self.moves is None:
            raise ConfigError(
                "selection='Fixed' needs to be fitted to images of the scene: call gtp_export.calibrate(model, config, "
                "images), or export with --calib-data DIR"
            )
        from gtp_models.methods.gtp.fixed import check_moves  # torch

        check_moves(self.moves, self.amounts(shape), shape)

    def _check_calibration(self, shape: ModelShape) -> None:
        if self.threshold == "exact" or self.sparsity == 1:
            return
        heads = [count if amount else 0 for count, amount in zip(shape.heads, self.amounts(shape), strict=True)]
        if self.calibration is None or [len(z) for z in self.calibration] != heads:
            raise ConfigError(
                "threshold='calibrated' needs a z for each head of each layer that reduces: measure them with "
                "gtp_export.calibrate(model, config, images), gtp-export calibrate, or --calib-data when exporting"
            )

    def amounts(self, shape: ModelShape) -> tuple[int, ...]:
        """Return how many tokens leave in each layer, of settings that are resolved."""
        return (self.num_prop,) * shape.depth if isinstance(self.num_prop, int) else self.num_prop or ()

    def layer_macs(self, layer: LayerShape) -> int:
        selection, graph, propagation = self.axes
        chosen = propagation.uses_graph and not (selection.is_fixed and graph.one_receiver)
        used = graph.macs(layer) if chosen else 0
        first_row = layer.tokens * layer.model.heads[0] * layer.model.head_dim if self.first_row else 0
        return first_row + selection.macs(layer) + used + propagation.macs(layer, self.scales)

    def setup_macs(self, shape: ModelShape) -> int:
        return self.axes[1].setup_macs(shape) if self.uses_graph else 0

    def topk(self, layer: LayerShape) -> int:
        ranked = 0 if self.axes[0].is_fixed else super().topk(layer)
        if self.sparsity == 1 or self.threshold == "calibrated":
            return ranked
        from gtp_models.methods.gtp.sparsity import topk_size  # torch

        return max(ranked, topk_size(layer.tokens, self.sparsity))

    def topk_remedy(self, layer: LayerShape, limit: int) -> str:
        if super().topk(layer) > limit:
            return super().topk_remedy(layer, limit)
        least = 1 - limit / layer.tokens**2
        return f"use sparsity=1.0 (or at least {least + 0.0005:.3f}), --threshold calibrated"


def graphs_with(attribute: str, value: bool = True) -> str:
    """Name the graphs with edges whose attribute is true (or not), for messages: "graph='Mixed' or graph='…'"."""
    from gtp_models.methods.gtp.graphs import GRAPHS  # torch

    graphs = [GRAPHS[name] for name in GRAPHS.names() if GRAPHS[name].edges]
    return " or ".join(f"graph={graph.name!r}" for graph in graphs if bool(getattr(graph, attribute)) == value)


def _selections_without_class_token() -> str:
    from gtp_models.methods.gtp.selections import SELECTIONS  # torch

    return ", ".join(name for name in SELECTIONS.names() if not SELECTIONS[name].needs_class_token)


def _moves(moves: Any) -> "Moves":
    """Return moves as tuples.

    Raises:
        ConfigError: something else than pairs of patch numbers for every layer.
    """
    try:
        layers = [[(left, into) for left, into in layer] for layer in moves]
        fits = all(is_int(patch) and patch >= 0 for layer in layers for pair in layer for patch in pair)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ConfigError("moves takes pairs of patch numbers for every layer, as gtp_export.calibrate returns them")
    return tuple(tuple((int(left), int(into)) for left, into in layer) for layer in layers)
