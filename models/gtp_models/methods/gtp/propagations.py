"""Token propagation (arXiv 2311.03035, section 3.3): what the tokens that stay receive from those that leave."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gtp_models.errors import ConfigError
from gtp_models.frame.tokens import Tokens, add_product
from gtp_models.methods.gtp.axes import Edges, Propagation, Split
from gtp_models.methods.settings import LayerShape
from gtp_runtime.registry import Registry

SHORTEST = 1e-6  # of a token's length: keeps a zero token finite
PROPAGATIONS: Registry[Propagation] = Registry("propagation", ConfigError)


def graph_prop(split: Split, edges: Edges | None) -> Tokens:
    """Add the leaving tokens, and their scales, by the weights of the edges (equation 6)."""
    assert edges is not None
    kept, left = split.kept, split.left
    scale = kept.scale
    if kept.scale is not None and left.scale is not None:
        scale = add_product(kept.scale, left.scale, edges.weights)
    x = add_product(kept.rows(), edges.weights.mT, left.rows()).reshape(kept.x.shape)
    return replace(kept, x=x, scale=scale)


@dataclass(frozen=True)
class Sums:
    """What is merged, all times its size.

    Attributes:
        kept, left: the tokens that stay and that leave.
        total: each token that stays with those that it receives.
        sizes: of ``total``.
    """

    kept: Float[Tensor, "*batch stay dim"]
    left: Float[Tensor, "*batch left dim"]
    total: Float[Tensor, "*batch stay dim"]
    sizes: Float[Tensor, "*batch 1 stay"]


def sums(split: Split, edges: Edges) -> Sums:
    """Add each leaving token to its receiver, by size; without scales every size is 1."""
    kept, left = split.kept.rows(), split.left.rows()
    own, leaving = split.kept.scaled().scale, split.left.scaled().scale
    assert own is not None and leaving is not None
    if split.kept.scale is not None:
        kept, left = kept * own.mT, left * leaving.mT
    total = add_product(kept, edges.weights.mT, left)
    return Sums(kept, left, total, add_product(own, leaving, edges.weights))


def merge(split: Split, edges: Edges | None) -> Tokens:
    """Merge each leaving token into its receiver: x_j is the mean weighted by size, s_j the sum of the sizes.

    Sizes and the size-weighted sum of the tokens are conserved.
    """
    assert edges is not None
    added = sums(split, edges)
    x = added.total / added.sizes.mT
    return replace(split.kept, x=x.reshape(split.kept.x.shape), scale=added.sizes)


def merge_norm(split: Split, edges: Edges | None) -> Tokens:
    """Merge as ``merge``, then scale each token to the size-weighted mean of the norms: a plain mean is shorter.

    Sizes are conserved.
    """
    assert edges is not None
    added = sums(split, edges)
    length = add_product(norms(added.kept), edges.weights.mT, norms(added.left))
    x = added.total * (length / (norms(added.total).clamp(min=SHORTEST) * added.sizes.mT))
    return replace(split.kept, x=x.reshape(split.kept.x.shape), scale=added.sizes)


def norms(rows: Float[Tensor, "*batch tokens dim"]) -> Float[Tensor, "*batch tokens 1"]:
    """Return the length of each token."""
    return (rows * rows).sum(-1, keepdim=True).sqrt()


def mean(split: Split, edges: Edges | None) -> Tokens:  # noqa: ARG001
    """Append the leaving tokens' mean; its original id is -1.

    It has no place, so a rotary embedding leaves it as it is (``rotary.rope_table``).
    """
    kept, left = split.kept, split.left
    assert kept.ids is not None
    x = torch.cat([kept.rows(), left.rows().mean(-2, keepdim=True)], dim=-2)
    ids = torch.nn.functional.pad(kept.ids, (0, 1), value=kept.num_prefix - 1)
    return replace(kept, x=x.reshape(-1, kept.x.shape[-1]), ids=ids)


def edge_macs(layer: LayerShape, scaled: bool) -> int:
    """Count the product of the edges with the tokens that leave, and with their scales."""
    return (layer.tokens - layer.num_prop) * layer.num_prop * (layer.model.dim + int(scaled))


def norm_macs(layer: LayerShape, scaled: bool) -> int:
    """Count the same, and the product of the edges with the norms of the tokens that leave."""
    return edge_macs(layer, scaled) + (layer.tokens - layer.num_prop) * layer.num_prop


for entry in (
    Propagation("None", "nothing: the tokens are dropped (pruning)", lambda split, edges: split.kept),
    Propagation("Mean", "the mean of the removed tokens becomes one new token", mean, joins=1),
    Propagation(
        "GraphProp",
        "neighbours receive the token times alpha and the edge's weight",
        graph_prop,
        uses_graph=True,
        uses_alpha=True,
        scales=True,
        macs=edge_macs,
    ),
    Propagation(
        "Merge",
        "tokens are merged into their receiver by the size-weighted mean",
        merge,
        uses_graph=True,
        one_receiver=True,
        scales=True,
        merges=True,
        macs=edge_macs,
    ),
    Propagation(
        "MergeNorm",
        "as Merge, and each token is scaled to the size-weighted mean of the norms",
        merge_norm,
        uses_graph=True,
        one_receiver=True,
        scales=True,
        merges=True,
        macs=norm_macs,
    ),
):
    PROPAGATIONS.add(entry)
