"""Mixed: neighbours in the Spatial or in the Semantic graph (the paper's)."""

from typing import TYPE_CHECKING

from torch import Tensor

from gtp_models.methods.gtp.axes import GRAPHS, Graph
from gtp_models.methods.gtp.graphs.adjacency import picked_edges, semantic_adjacency, spatial_adjacency, weighted
from gtp_models.methods.gtp.graphs.semantic import similarity_macs

if TYPE_CHECKING:
    from gtp_models.methods.gtp.config import GTPConfig


def mixed(x: Tensor, grid: tuple[int, int], num_prefix: int, config: "GTPConfig", factor: float) -> Tensor:
    """Weigh the edges that either graph has."""
    spatial = spatial_adjacency(grid, num_prefix).to(x.device)
    semantic = semantic_adjacency(x, config.num_neighbours, num_prefix)
    return weighted(semantic | spatial, x, num_prefix, factor)


GRAPHS.add(
    Graph(
        "Mixed",
        "Spatial and Semantic together",
        picked_edges,
        mixed,
        uses_neighbours=True,
        setup_macs=similarity_macs,
    )
)
