"""The token graph (arXiv 2311.03035, section 3.3): who receives what from whom.

Pure maths over image tokens. ``*batch`` stands for any leading axes, none included: a batch of one is
carried without its axis, which keeps the exported graph small.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from gtp_models.gtp.config import GTPConfig

_EPS = 1e-12  # keeps the similarity of a zero vector finite


@lru_cache(maxsize=16)
def _neighbourhood(grid: tuple[int, int]) -> np.ndarray:
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    near = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns)) == 1
    return np.asarray(near)


def spatial_adjacency(grid: tuple[int, int]) -> Bool[Tensor, "tokens tokens"]:
    """Edges to the 8-neighbourhood on a (rows, columns) patch grid, row by row; no self-loops."""
    return torch.tensor(_neighbourhood(grid))


def semantic_adjacency(
    x: Float[Tensor, "*batch tokens dim"], num_neighbours: int
) -> Bool[Tensor, "*batch tokens tokens"]:
    """Edges from each token to its ``num_neighbours`` most similar others by cosine; ties all count."""
    length = (x * x).sum(-1, keepdim=True).sqrt()  # quicker than ReduceL2 in ONNX Runtime
    unit = x / length.clamp(min=_EPS)
    similarity = unit @ unit.mT
    others = similarity - 4 * torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)  # cosines end at 1
    least = others.topk(num_neighbours, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    return others >= least


def normalise(
    adjacency: Bool[Tensor, "*batch tokens tokens"], dtype: torch.dtype
) -> Float[Tensor, "*batch tokens tokens"]:
    """Weigh an edge by ``1 / sqrt(d_i d_j)``, with row sums d on both sides (equation 4)."""
    edges = adjacency.to(dtype)
    scale = edges.sum(-1).clamp(min=1) ** -0.5  # a token without edges has none to weigh
    return scale[..., :, None] * edges * scale[..., None, :]


def token_graph(
    x: Float[Tensor, "*batch tokens dim"], grid: tuple[int, int], config: GTPConfig
) -> Float[Tensor, "*any tokens tokens"]:
    """Return ``alpha * W`` transposed: entry [j, i] is what token i receives when token j leaves.

    Args:
        x: the image tokens before the first block.
        grid: their (rows, columns); rows * columns tokens.
        config: ``graph``, ``num_neighbours`` and ``alpha``.
    """
    spatial = spatial_adjacency(grid).to(x.device)
    if config.graph == "Spatial":
        adjacency = spatial
    else:
        adjacency = semantic_adjacency(x, config.num_neighbours)
        adjacency = adjacency | spatial if config.graph == "Mixed" else adjacency
    return config.alpha * normalise(adjacency, x.dtype).mT


def with_prefix(graph: Float[Tensor, "*batch tokens tokens"], num_prefix: int) -> Float[Tensor, "*batch all all"]:
    """Add prefix tokens in front: they never leave and never receive."""
    return F.pad(graph, (num_prefix, 0, num_prefix, 0)) if num_prefix else graph


def edges(
    graph: Float[Tensor, "*any all all"], leaving: Int[Tensor, "*batch left"], staying: Int[Tensor, "*batch stay"]
) -> Float[Tensor, "*batch left stay"]:
    """Pick the weights from the tokens that leave to the tokens that stay, by original ids.

    One image gathers rows, then columns; a batch gathers single entries by their place in the
    flattened graph, since each image picks columns of its own.
    """
    if leaving.ndim == 1:
        return graph.index_select(0, leaving).index_select(1, staying)
    size = graph.shape[-1]
    places = leaving[:, :, None] * size + staying[:, None, :]
    if graph.ndim == 3:
        images = torch.arange(len(leaving), device=graph.device) * size * size
        places = places + images[:, None, None]
    column = graph.reshape(-1, 1)  # onnxsim takes long vectors for shapes, and traces each entry
    return column.index_select(0, places.flatten()).view(places.shape)
