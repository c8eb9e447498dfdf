"""GraphProp: each neighbour receives a share of the token that leaves (equation 6)."""

from dataclasses import replace

from gtp_models.frame.tokens import Tokens, add_product
from gtp_models.methods.gtp.axes import PROPAGATIONS, Edges, Parted, Propagation
from gtp_models.methods.settings import LayerShape


def graph_prop(parted: Parted, edges: Edges | None) -> Tokens:
    """Add the leaving tokens, and their scales, by the weights of the edges."""
    assert edges is not None
    kept, left = parted.kept, parted.left
    scale = kept.scale
    if kept.scale is not None and left.scale is not None:
        scale = add_product(kept.scale, left.scale, edges.weights)
    received = edges.weights.mT
    rows = (*kept.axes, -1, kept.x.shape[-1])
    x = add_product(kept.x.view(rows), received, left.x.view(rows)).reshape(kept.x.shape)
    return replace(kept, x=x, scale=scale)


def edge_macs(layer: LayerShape, scaled: bool) -> int:
    """Count the product of the edges with the tokens that leave, and with their scales."""
    return (layer.tokens - layer.num_prop) * layer.num_prop * (layer.model.dim + int(scaled))


PROPAGATIONS.add(
    Propagation(
        "GraphProp",
        "neighbours receive the token times alpha and the edge's weight",
        graph_prop,
        uses_graph=True,
        uses_alpha=True,
        macs=edge_macs,
    )
)
