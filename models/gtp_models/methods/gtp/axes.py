"""GTP's three axes: what an entry of each defines.

The entries are in ``selections`` (which tokens leave), ``graphs`` (which tokens are neighbours) and ``propagations``
(what the tokens that stay receive), each with its registry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from gtp_models.frame.attention import AttentionMap
from gtp_models.frame.tokens import Tokens
from gtp_models.methods.gtp.sketch import directions
from gtp_models.methods.settings import LayerShape, ModelShape

Scores = Float[Tensor, "*batch tokens"]
Weights = Float[Tensor, "*batch left stay"]


@dataclass(frozen=True)
class State:
    """The state of a layer between attention and MLP, as the axes read it.

    Attributes:
        tokens: all tokens, prefix tokens in front.
        attention: the attention map after the sparsity threshold, or its first row if that is enough.
    """

    tokens: Tokens
    attention: AttentionMap

    @cached_property
    def directions(self) -> Float[Tensor, "*batch tokens sketch"]:
        """Unit vectors by which tokens are compared: their products are cosine similarities."""
        return directions(self.tokens.rows())


@dataclass(frozen=True)
class Split:
    """The tokens of a layer, split into those that are kept and those that are removed.

    Attributes:
        staying, leaving: their positions among all tokens.
        kept, left: the tokens there.
    """

    staying: Int[Tensor, "*batch stay"]
    leaving: Int[Tensor, "*batch left"]
    kept: Tokens
    left: Tokens


@dataclass(frozen=True)
class Edges:
    """Edges from the tokens that leave to those that stay.

    Attributes:
        weights: of every pair.
        receivers: positions among the tokens that stay, where each token that leaves has one receiver; else None.
    """

    weights: Weights
    receivers: Int[Tensor, "*batch left"] | None = None


@dataclass(frozen=True)
class GraphInput:
    """What a graph is made of before the first block.

    Attributes:
        x: all tokens.
        grid: (rows, columns) of patches.
        num_prefix: prefix tokens in front.
        num_neighbours: of each token.
        factor: of every weight.
    """

    x: Float[Tensor, "*batch tokens dim"]
    grid: tuple[int, int]
    num_prefix: int
    num_neighbours: int
    factor: float


@dataclass(frozen=True)
class Selection:
    """A selection: which tokens are removed.

    Attributes:
        name: the value of the setting.
        summary: one line for users.
        score: a score for every token, prefix tokens included; the lowest are removed, and a tie keeps the first. None:
            constants say which tokens are removed and who receives them (``fixed``).
        needs: "map" (the whole attention map), "class_row" (what the class token attends to) or "tokens".
        needs_class_token: whether the model must have a class token.
        held: image tokens at the front, after the prefix, which are never removed.
        macs: MACs in a layer that removes tokens.
    """

    name: str
    summary: str
    score: Callable[[State], Scores] | None
    needs: Literal["map", "class_row", "tokens"] = "map"
    needs_class_token: bool = False
    held: int = 0
    macs: Callable[[LayerShape], int] = lambda layer: 0

    @property
    def is_fixed(self) -> bool:
        """Whether constants say which tokens are removed."""
        return self.score is None


@dataclass(frozen=True)
class Graph:
    """A graph: weighted edges from the removed to the kept tokens.

    Attributes:
        name: the value of the setting.
        summary: one line for users.
        edges: weights in a layer from the removed to the kept tokens; None for no graph.
        setup: what is made of all tokens before the first block, (*any, tokens, tokens), for ``edges`` to find in
            ``tokens.setup``; None for a graph that is made in the layer.
        uses_neighbours: whether it uses ``num_neighbours``.
        one_receiver: whether each removed token has one receiver.
        setup_macs, macs: MACs of the setup, and in a layer that removes tokens.
    """

    name: str
    summary: str
    edges: Callable[[State, Split], Edges] | None = None
    setup: Callable[[GraphInput], Tensor] | None = None
    uses_neighbours: bool = False
    one_receiver: bool = False
    setup_macs: Callable[[ModelShape], int] = lambda shape: 0
    macs: Callable[[LayerShape], int] = lambda layer: 0


@dataclass(frozen=True)
class Propagation:
    """A propagation: what the kept tokens receive from the removed tokens.

    Attributes:
        name: the value of the setting.
        summary: one line for users.
        combine: from the split tokens and the edges between them (None if it uses no graph) to the tokens after the
            layer.
        uses_graph: whether it needs a graph.
        uses_alpha: whether it uses ``alpha``, the factor of every edge.
        one_receiver: whether it needs a graph that gives each token one receiver.
        scales: whether a kept token's scale grows by those of the tokens that it receives; otherwise all stay 1.
        merges: whether a token's scale is then the number of patches that it stands for.
        joins: number of new tokens.
        macs: MACs in a layer that reduces, given whether tokens have a scale.
    """

    name: str
    summary: str
    combine: Callable[[Split, Edges | None], Tokens]
    uses_graph: bool = False
    uses_alpha: bool = False
    one_receiver: bool = False
    scales: bool = False
    merges: bool = False
    joins: int = 0
    macs: Callable[[LayerShape, bool], int] = lambda layer, scaled: 0
