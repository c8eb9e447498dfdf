"""GTP in timm's blocks."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gtp_models.frame.attention import Attended, Threshold
from gtp_models.frame.blocks import ReducingBlocks
from gtp_models.frame.families.forms import Blocks
from gtp_models.frame.tokens import Tokens, rank, take_ids
from gtp_models.frame.trace import Layer
from gtp_models.methods.gtp.axes import (
    GRAPHS,
    PROPAGATIONS,
    SELECTIONS,
    Edges,
    Graph,
    Parted,
    Propagation,
    Seen,
    Selection,
)
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.gtp.sparsity import calibrated_threshold, exact_threshold
from gtp_models.methods.settings import ModelShape


class GTPBlocks(ReducingBlocks):
    """GTP (arXiv 2311.03035, figure 2).

    Modifications:
    - sets up the token graph from its input, once, where the graph is made so
    - selects, finds the edges to the tokens that stay, and propagates along them
    """

    def __init__(self, blocks: Blocks, config: GTPConfig, shape: ModelShape, num_prop: Sequence[int]) -> None:
        super().__init__(blocks, num_prop, shape.num_prefix)
        self.config, self.grid = config, shape.grid
        self.merges = config.merges
        self.one_receiver = self.token_graph.one_receiver
        self.factor = self.config.alpha if self.propagation.uses_alpha else 1.0
        self.first_row = config.first_row

    @property
    def selection(self) -> Selection:
        """The entry that scores tokens; looked up by name, since an entry's functions cannot be pickled."""
        return SELECTIONS[self.config.selection]

    @property
    def propagation(self) -> Propagation:
        """The entry that combines tokens."""
        return PROPAGATIONS[self.config.propagation]

    @property
    def token_graph(self) -> Graph:
        """The entry that makes edges; that of no graph where the propagation uses none."""
        return GRAPHS[self.config.graph if self.propagation.uses_graph else "None"]

    def setup(self, x: Tensor) -> Tensor | None:
        make = self.token_graph.setup
        if make is None:
            return None
        return make(x if len(x) > 1 else x.flatten(0, 1), self.grid, self.num_prefix, self.config, self.factor)

    def threshold(self, index: int) -> Threshold | None:
        config = self.config
        if config.sparsity == 1:
            return None
        if config.threshold == "exact" or config.calibration is None:
            return lambda logits, attention: exact_threshold(attention, config.sparsity)
        z = torch.tensor(config.calibration[index])[:, None, None]
        return lambda logits, attention: calibrated_threshold(logits, attention, z.to(attention))

    def reduce(self, tokens: Tokens, attended: Attended, amount: int) -> Layer:
        if self.config.token_scale:
            tokens = tokens.scaled()
        seen = Seen(tokens, attended.map)
        scores, order = rank(self.selection.score(seen), tokens.num_prefix + self.selection.held)
        last = tokens.count - amount - 1
        staying, leaving = torch.split(order, [last + 1, amount], dim=-1)
        parted = Parted(staying, leaving, tokens.pick(staying), tokens.pick(leaving))
        edges = self._edges(seen, parted)
        after = self.propagation.combine(parted, edges)
        gap = scores[..., last] - scores[..., last + 1]
        return Layer(after, parted.left.ids, gap, _receivers(parted, edges))

    def _edges(self, seen: Seen, parted: Parted) -> Edges | None:
        if self.token_graph.edges is None:
            return None
        edges = self.token_graph.edges(seen, parted)
        if self.token_graph.setup is None and self.factor != 1:  # else the factor is in the graph already
            edges = replace(edges, weights=edges.weights * self.factor)
        return edges


def _receivers(parted: Parted, edges: Edges | None) -> Tensor | None:
    """Return the original ids of the tokens that received, in the order of those that left."""
    if edges is None or edges.receivers is None:
        return None
    assert parted.kept.ids is not None
    return take_ids(parted.kept.ids, edges.receivers)
