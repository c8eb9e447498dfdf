from typing import Any

import pytest
import torch
from torch import Tensor

from gtp_models.methods.gtp.axes import GraphInput
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.gtp.graphs import GRAPHS, normalise, pick, semantic_adjacency, spatial_adjacency

GRID = (4, 5)


def vectors(*batch: int) -> Tensor:
    return torch.randn(*batch, GRID[0] * GRID[1], 6, generator=torch.Generator().manual_seed(0))


def token_graph(x: Tensor, grid: tuple[int, int], num_prefix: int, config: GTPConfig) -> Tensor:
    """Make the graph as the blocks do, weighed by alpha."""
    setup = GRAPHS[config.graph].setup
    assert setup is not None
    return setup(GraphInput(x, grid, num_prefix, config.num_neighbours, config.alpha))


def naive_weights(adjacency: Tensor) -> Tensor:
    edge = adjacency.float().fill_diagonal_(0)
    scale = torch.diag(edge.sum(1) ** -0.5)
    return scale @ edge @ scale


def others(weights: Tensor) -> Tensor:
    """Return the weights with zeros on the diagonal, which means nothing."""
    return weights * (1 - torch.eye(weights.shape[-1]))


@pytest.mark.parametrize("grid", [(4, 4), (3, 7), (6, 2)])
def test_spatial_neighbours(grid: tuple[int, int]) -> None:
    rows, columns = grid
    adjacency = spatial_adjacency(grid)
    for i in range(rows * columns):
        for j in range(rows * columns):
            near = abs(i // columns - j // columns) <= 1 and abs(i % columns - j % columns) <= 1
            assert adjacency[i, j] == near


def test_corner_edge_and_inner_have_3_5_and_8_neighbours_beside_themselves() -> None:
    numbers = (spatial_adjacency((3, 4)).sum(1) - 1).view(3, 4).tolist()
    assert numbers == [[3, 5, 5, 3], [5, 8, 8, 5], [3, 5, 5, 3]]


@pytest.mark.parametrize("number", [1, 3, 19])
def test_semantic_neighbours(number: int) -> None:
    x = vectors(2)
    adjacency = semantic_adjacency(x, number)
    for image in range(2):
        for i in range(x.shape[1]):
            cosine = torch.cosine_similarity(x[image, i], x[image], dim=-1)
            others = sorted((j for j in range(x.shape[1]) if j != i), key=lambda j: -cosine[j])
            assert adjacency[image, i].nonzero()[:, 0].tolist() == sorted([i, *others[:number]])


def test_semantic_edges_are_directed() -> None:
    adjacency = semantic_adjacency(vectors(), 3)
    assert not torch.equal(adjacency, adjacency.mT)


def test_ties_admit_more_neighbours() -> None:
    x = torch.eye(4)[[0, 0, 0, 1, 2]]
    neighbours = [row.nonzero()[:, 0].tolist() for row in semantic_adjacency(x, 1)]
    assert neighbours == [[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("graph", ["Semantic", "Mixed"])
def test_zero_vectors_stay_finite(graph: Any) -> None:
    x = vectors()
    x[3:6] = 0
    for values in (x, torch.zeros_like(x)):
        assert token_graph(values, GRID, 0, GTPConfig(graph=graph)).isfinite().all()


def test_normalise_equals_two_products() -> None:
    adjacency = semantic_adjacency(vectors(), 3) | spatial_adjacency(GRID)
    torch.testing.assert_close(others(normalise(adjacency, torch.float32)), naive_weights(adjacency))


def test_normalise_leaves_a_token_without_edges() -> None:
    assert normalise(spatial_adjacency((1, 1)), torch.float32).isfinite().all()


@pytest.mark.parametrize("graph", ["Spatial", "Semantic", "Mixed"])
def test_graph_is_transposed_and_weighed_by_alpha(graph: Any) -> None:
    x, spatial = vectors(), spatial_adjacency(GRID)
    adjacency = {"Spatial": spatial, "Semantic": semantic_adjacency(x, 3), "Mixed": semantic_adjacency(x, 3) | spatial}
    ours = token_graph(x, GRID, 0, GTPConfig(graph=graph, num_neighbours=3, alpha=0.3))
    torch.testing.assert_close(others(ours), 0.3 * naive_weights(adjacency[graph]).T)


@pytest.mark.parametrize("graph", ["Spatial", "Semantic", "Mixed"])
@pytest.mark.parametrize("number", [1, 3])
def test_prefix_tokens_neither_give_nor_receive(number: int, graph: Any) -> None:
    x = vectors(2)
    prefix = 100 * x[:, :1].expand(-1, number, -1)  # like the first patch, and longer than all
    alone = token_graph(x, GRID, 0, GTPConfig(graph=graph))
    beside = token_graph(torch.cat([prefix, x], 1), GRID, number, GTPConfig(graph=graph))
    torch.testing.assert_close(beside[..., number:, number:], alone)
    assert not beside[..., :, :number].any()  # what a prefix token gives is never asked for


@pytest.mark.parametrize("shared", [False, True])
def test_edges_of_a_batch(shared: bool) -> None:
    weights = torch.rand(7, 7) if shared else torch.rand(3, 7, 7)
    orders = torch.stack([torch.randperm(7) for _ in range(3)])
    kept, propagated = orders[:, :5], orders[:, 5:]
    picked = pick(weights.mT, propagated, kept)
    for image in range(3):
        own = weights if shared else weights[image]
        expected = own[kept[image]][:, propagated[image]]
        assert torch.equal(picked[image].mT, expected)
        assert torch.equal(pick(own.mT, propagated[image], kept[image]).mT, expected)
