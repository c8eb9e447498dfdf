"""Semantic: a token's neighbours are the most similar embedded patches."""

from typing import TYPE_CHECKING

from torch import Tensor

from gtp_models.methods.gtp.axes import GRAPHS, Graph
from gtp_models.methods.gtp.graphs.adjacency import picked_edges, semantic_adjacency, weighted
from gtp_models.methods.settings import ModelShape

if TYPE_CHECKING:
    from gtp_models.methods.gtp.config import GTPConfig


def semantic(x: Tensor, grid: tuple[int, int], num_prefix: int, config: "GTPConfig", factor: float) -> Tensor:  # noqa: ARG001
    """Weigh the edges to the ``num_neighbours`` most similar tokens."""
    return weighted(semantic_adjacency(x, config.num_neighbours, num_prefix), x, num_prefix, factor)


def similarity_macs(shape: ModelShape) -> int:
    """Count the products of all pairs of tokens."""
    return (shape.patches + shape.num_prefix) ** 2 * shape.dim


GRAPHS.add(
    Graph(
        "Semantic",
        "the num_neighbours most similar tokens by cosine, before the first block",
        picked_edges,
        semantic,
        uses_neighbours=True,
        setup_macs=similarity_macs,
    )
)
