"""GTP in timm's blocks."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gtp_models.frame.attention import AttentionOutput, Threshold
from gtp_models.frame.blocks import ReducingBlocks
from gtp_models.frame.families.forms import Blocks
from gtp_models.frame.tokens import Tokens, rank, take_ids
from gtp_models.frame.trace import Layer
from gtp_models.methods import METHODS, Method
from gtp_models.methods.gtp.axes import (
    Edges,
    Graph,
    GraphInput,
    Propagation,
    Selection,
    Split,
    State,
)
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.gtp.fixed import fixed_steps
from gtp_models.methods.gtp.graphs import GRAPHS
from gtp_models.methods.gtp.propagations import PROPAGATIONS
from gtp_models.methods.gtp.selections import SELECTIONS
from gtp_models.methods.gtp.sparsity import calibrated_threshold, exact_threshold
from gtp_models.methods.settings import ModelShape
from gtp_models.plan import Plan


class GTPBlocks(ReducingBlocks):
    """GTP (arXiv 2311.03035, figure 2).

    Modifications:
    - builds the token graph once from the input, if the graph needs it
    - selects, finds the edges to the tokens that stay, and propagates along them
    """

    def __init__(self, blocks: Blocks, config: GTPConfig, shape: ModelShape, num_prop: Sequence[int]) -> None:
        super().__init__(blocks, num_prop, shape.num_prefix)
        self.config, self.grid = config, shape.grid
        self.merges = config.merges
        self.one_receiver = self.token_graph.one_receiver
        self.factor = self.config.alpha if self.propagation.uses_alpha else 1.0
        self.first_row = config.first_row
        self.selects = not self.selection.is_fixed
        self.fixed = fixed_steps(config.moves or (), shape)

    @property
    def selection(self) -> Selection:
        """Which tokens leave; looked up by name, since entries hold functions and models are pickled."""
        return SELECTIONS[self.config.selection]

    @property
    def propagation(self) -> Propagation:
        """What the tokens that stay receive."""
        return PROPAGATIONS[self.config.propagation]

    @property
    def token_graph(self) -> Graph:
        """Which tokens are neighbours; none where the propagation uses no graph."""
        return GRAPHS[self.config.graph if self.propagation.uses_graph else "None"]

    def setup(self, x: Tensor) -> Tensor | None:
        make = self.token_graph.setup
        if make is None:
            return None
        tokens = x if len(x) > 1 else x.flatten(0, 1)
        return make(GraphInput(tokens, self.grid, self.num_prefix, self.config.num_neighbours, self.factor))

    def threshold(self, index: int) -> Threshold | None:
        config = self.config
        if config.sparsity == 1:
            return None
        if config.threshold == "exact" or config.calibration is None:
            return lambda logits, attention: exact_threshold(attention, config.sparsity)
        z = torch.tensor(config.calibration[index])[:, None, None]
        return lambda logits, attention: calibrated_threshold(logits, attention, z.to(attention))

    def reduce(self, tokens: Tokens, attention: AttentionOutput, amount: int) -> Layer:
        if self.config.scales and not self.merges:  # merging takes no scale as sizes of 1
            tokens = tokens.scaled()
        state = State(tokens, attention.map)
        staying, leaving, gap = self._chosen(state, amount)
        split = Split(staying, leaving, tokens.pick(staying), tokens.pick(leaving))
        edges = self._edges(state, split)
        after = self.propagation.combine(split, edges)
        return Layer(after, split.left.ids, gap, _receivers(split, edges))

    def _chosen(self, state: State, amount: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return positions of the tokens that stay and of those that leave, and the gap between their scores."""
        tokens = state.tokens
        if self.selection.score is None:
            return *self.fixed[tokens.count].positions(tokens), tokens.x.new_zeros(tokens.axes)
        scores, order = rank(self.selection.score(state), tokens.num_prefix + self.selection.held)
        last = tokens.count - amount - 1
        staying, leaving = torch.split(order, [last + 1, amount], dim=-1)
        return staying, leaving, scores[..., last] - scores[..., last + 1]

    def _edges(self, state: State, split: Split) -> Edges | None:
        if self.token_graph.edges is None:
            return None
        if self.selection.is_fixed and self.token_graph.one_receiver:
            edges = self.fixed[state.tokens.count].edges(state.tokens)
        else:
            edges = self.token_graph.edges(state, split)
        if self.token_graph.setup is None and self.factor != 1:  # otherwise the graph contains the factor
            edges = replace(edges, weights=edges.weights * self.factor)
        return edges


def _receivers(split: Split, edges: Edges | None) -> Tensor | None:
    """Return the original ids of the tokens that received, in the order of those that left."""
    if edges is None or edges.receivers is None:
        return None
    assert split.kept.ids is not None
    return take_ids(split.kept.ids, edges.receivers)


def _blocks(blocks: Blocks, plan: Plan) -> GTPBlocks:
    assert isinstance(plan.settings, GTPConfig)
    return GTPBlocks(blocks, plan.settings, plan.shape, plan.num_prop)


METHODS.add(Method(GTPConfig, _blocks))
