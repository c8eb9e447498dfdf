"""The token graph (arXiv 2311.03035, section 3.3): which tokens are neighbours.

``Spatial``, ``Semantic`` and ``Mixed`` are built once, before the first block; a layer picks their edges by the tokens'
original ids. ``Nearest`` is built in the layer. ``*batch`` is any number of leading axes. A batch of one has none,
which keeps the exported graph small.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from gtp_models.errors import ConfigError
from gtp_models.frame.tokens import NEVER, add_product, take
from gtp_models.methods.gtp.axes import Edges, Graph, GraphInput, Split, State
from gtp_models.methods.gtp.sketch import EPS, sketch_size
from gtp_models.methods.settings import LayerShape, ModelShape
from gtp_runtime.registry import Registry

GRAPHS: Registry[Graph] = Registry("graph", ConfigError)
_BELOW_PRODUCTS = -1e20  # below every product of two tokens


def spatial(source: GraphInput) -> Tensor:
    """Weigh the edges of the 8-neighbourhood on the patch grid."""
    return weighted(spatial_adjacency(source.grid, source.num_prefix).to(source.x.device), source)


def semantic(source: GraphInput) -> Tensor:
    """Weigh the edges to the ``num_neighbours`` most similar tokens."""
    return weighted(semantic_adjacency(source.x, source.num_neighbours, source.num_prefix), source)


def mixed(source: GraphInput) -> Tensor:
    """Weigh the edges that either of both graphs has (the paper's)."""
    near = spatial_adjacency(source.grid, source.num_prefix).to(source.x.device)
    similar = semantic_adjacency(source.x, source.num_neighbours, source.num_prefix)
    return weighted(similar | near, source)


def nearest(state: State, split: Split) -> Edges:
    """Give each leaving token one edge: to the most similar image token that stays.

    Of equally similar ones it is the first in the current order.
    """
    left, stay = (_directions_at(state, positions) for positions in (split.leaving, split.staying))
    places = torch.arange(stay.shape[-2], device=stay.device)
    floor = torch.where(places < state.tokens.num_prefix, NEVER, 0.0).to(stay)[None]
    receivers = add_product(floor, left, stay.mT).argmax(-1)
    return Edges((receivers[..., None] == places).to(stay.dtype), receivers)


def _directions_at(state: State, positions: Tensor) -> Tensor:
    rows = take(state.directions.flatten(0, -2), positions, state.tokens.count)
    return rows.view(*positions.shape, -1)


@lru_cache(maxsize=16)
def _neighbourhood(grid: tuple[int, int]) -> np.ndarray:
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    near = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns)) <= 1
    return np.asarray(near)


def spatial_adjacency(grid: tuple[int, int], num_prefix: int = 0) -> Bool[Tensor, "tokens tokens"]:
    """Mark each token's 8-neighbourhood on a (rows, columns) patch grid, row by row, and the token itself."""
    return F.pad(torch.tensor(_neighbourhood(grid)), (num_prefix, 0, num_prefix, 0))


def semantic_adjacency(
    x: Float[Tensor, "*batch tokens dim"], num_neighbours: int, num_prefix: int = 0
) -> Bool[Tensor, "*batch tokens tokens"]:
    """Mark in row i the ``num_neighbours`` others most similar to token i by cosine, and i itself, with all ties.

    Products are divided by the length of the other token only: dividing a row by the length of token i does not change
    its order. Prefix tokens are marked in no row but their own, which means nothing.
    """
    floor = torch.zeros(1, x.shape[-2], dtype=x.dtype, device=x.device)
    floor[:, :num_prefix] = _BELOW_PRODUCTS
    products = add_product(floor, x, x.mT) if num_prefix else x @ x.mT
    squares = products.reshape(*products.shape[:-2], 1, -1)[..., :: x.shape[-2] + 1]  # the diagonal
    cosine = products / squares.clamp(min=EPS).sqrt()
    least = cosine.topk(num_neighbours + 1, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    return cosine >= least


def normalise(
    adjacency: Bool[Tensor, "*batch tokens tokens"], dtype: torch.dtype, alpha: float | Tensor = 1.0
) -> Float[Tensor, "*batch tokens tokens"]:
    """Weigh an edge by ``alpha / sqrt(d_i d_j)``, d_i the others marked in row i (equation 4).

    The diagonal means nothing: no token both leaves and stays.
    """
    edges = adjacency.to(dtype)
    scale = (edges.sum(-1) - 1).clamp(min=1) ** -0.5  # a token without edges has none to weigh
    return edges * (alpha * scale)[..., :, None] * scale[..., None, :]


def weighted(adjacency: Bool[Tensor, "*any tokens tokens"], source: GraphInput) -> Float[Tensor, "*any tokens tokens"]:
    """Return ``factor * W`` transposed: entry [j, i] is what token i receives when token j leaves.

    Prefix tokens never leave and never receive.
    """
    x = source.x
    alpha = torch.full((x.shape[-2],), source.factor, dtype=x.dtype, device=x.device)
    alpha[: source.num_prefix] = 0
    return normalise(adjacency, x.dtype, alpha).mT


def picked_edges(state: State, split: Split) -> Edges:
    """Pick the edges of a graph that was made before the first block, by original ids."""
    kept, left = split.kept.ids, split.left.ids
    assert state.tokens.setup is not None and kept is not None and left is not None
    return Edges(pick(state.tokens.setup, left, kept))


def pick(
    graph: Float[Tensor, "*any all all"], leaving: Int[Tensor, "*batch left"], staying: Int[Tensor, "*batch stay"]
) -> Float[Tensor, "*batch left stay"]:
    """Pick what stands in the rows of the tokens that leave and the columns of those that stay.

    One image gathers rows, then columns. A batch gathers single entries by their position in the
    flattened graph, because each image picks its own columns.
    """
    if leaving.ndim == 1:
        return graph.index_select(0, leaving).index_select(1, staying)
    size = graph.shape[-1]
    places = leaving[:, :, None] * size + staying[:, None, :]
    if graph.ndim == 3:
        images = torch.arange(len(leaving), device=graph.device) * size * size
        places = places + images[:, None, None]
    column = graph.reshape(-1, 1)  # onnxsim treats long vectors as shapes and tracks each entry
    return column.index_select(0, places.flatten()).view(places.shape)


def similarity_macs(shape: ModelShape) -> int:
    """Count the products of all pairs of tokens."""
    return (shape.patches + shape.num_prefix) ** 2 * shape.dim


def nearest_macs(layer: LayerShape) -> int:
    """Count the products of the tokens that leave with those that stay."""
    return layer.num_prop * (layer.tokens - layer.num_prop) * sketch_size(layer.model.dim)


for entry in (
    Graph("None", "no graph"),
    Graph("Spatial", "the 8-neighbourhood on the patch grid", picked_edges, spatial),
    Graph(
        "Semantic",
        "the num_neighbours most similar tokens by cosine, before the first block",
        picked_edges,
        semantic,
        uses_neighbours=True,
        setup_macs=similarity_macs,
    ),
    Graph(
        "Mixed",
        "Spatial and Semantic together",
        picked_edges,
        mixed,
        uses_neighbours=True,
        setup_macs=similarity_macs,
    ),
    Graph(
        "Nearest",
        "the most similar kept token, found in the layer",
        nearest,
        one_receiver=True,
        macs=nearest_macs,
    ),
):
    GRAPHS.add(entry)
