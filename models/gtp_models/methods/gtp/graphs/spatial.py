"""Spatial: a token's neighbours are the patches around it."""

from typing import TYPE_CHECKING

from torch import Tensor

from gtp_models.methods.gtp.axes import GRAPHS, Graph
from gtp_models.methods.gtp.graphs.adjacency import picked_edges, spatial_adjacency, weighted

if TYPE_CHECKING:
    from gtp_models.methods.gtp.config import GTPConfig


def spatial(x: Tensor, grid: tuple[int, int], num_prefix: int, config: "GTPConfig", factor: float) -> Tensor:  # noqa: ARG001
    """Weigh the edges of the 8-neighbourhood on the patch grid."""
    return weighted(spatial_adjacency(grid, num_prefix).to(x.device), x, num_prefix, factor)


GRAPHS.add(Graph("Spatial", "the 8-neighbourhood on the patch grid", picked_edges, spatial))
