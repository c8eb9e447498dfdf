"""Merge: each token that leaves is merged into its receiver, by the mean weighted by size."""

from dataclasses import replace

from gtp_models.frame.tokens import Tokens, add_product
from gtp_models.methods.gtp.axes import PROPAGATIONS, Edges, Parted, Propagation
from gtp_models.methods.gtp.propagations.graph_prop import edge_macs


def merge(parted: Parted, edges: Edges | None) -> Tokens:
    """Let x_j be the mean of its own and the received tokens weighted by size, and s_j the sum of their sizes.

    Sizes and the size-weighted sum of the tokens are conserved.
    """
    kept, left = parted.kept, parted.left
    assert edges is not None and kept.scale is not None and left.scale is not None
    scale = add_product(kept.scale, left.scale, edges.weights)
    shares = (edges.weights * left.scale.mT / scale).mT
    own = kept.rows() * (kept.scale / scale).mT
    x = add_product(own, shares, left.rows())
    return replace(kept, x=x.reshape(kept.x.shape), scale=scale)


PROPAGATIONS.add(
    Propagation(
        "Merge",
        "tokens are merged into their receiver by the size-weighted mean",
        merge,
        uses_graph=True,
        one_receiver=True,
        merges=True,
        macs=edge_macs,
    )
)
