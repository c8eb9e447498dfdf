from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from gtp_models.frame.tokens import Tokens, rank
from gtp_models.methods.gtp.axes import State
from gtp_models.methods.gtp.selections import SELECTIONS

OF_ATTENTION = [name for name in SELECTIONS.names() if SELECTIONS[name].needs != "tokens"]


def attention_map(*batch: int) -> Tensor:
    """A map of 3 heads and 8 tokens with a few zeros, as sparsification leaves it."""
    attention = torch.randn(*batch, 3, 8, 8, generator=torch.Generator().manual_seed(0)).softmax(-1)
    return attention.masked_fill(attention < 0.03, 0).double()


def scores(attention: Tensor, selection: str, num_prefix: int) -> Tensor:
    """Score as a layer does; a map alone, without its batch axis, is that of a batch of one."""
    batch = attention.shape[0] if attention.ndim == 4 else 1
    tokens = Tokens(torch.zeros(batch * attention.shape[-1], 4), batch, num_prefix)
    return SELECTIONS[selection].score(State(tokens, attention))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def naive(attention: Tensor, selection: str, token: int, num_prefix: int) -> float:
    """The definitions in loops, for one image and one token."""
    heads, tokens = range(attention.shape[0]), range(attention.shape[1])
    reduce: Callable[[Sequence[float]], float] = max if selection.endswith("Max") else mean
    a = attention.tolist()
    given = reduce([a[h][0][token] for h in heads])
    received = reduce([sum(a[h][i][token] for i in tokens) for h in heads])
    itself = reduce([a[h][token][token] for h in heads])
    rows = [torch.tensor([reduce([a[h][i][j] for h in heads]) for j in tokens], dtype=torch.float64) for i in tokens]
    cosines = [torch.cosine_similarity(rows[token], rows[i], dim=0).item() for i in tokens[num_prefix:]]
    return {
        "CLSAttn": given,
        "IMGAttn": received,
        "DiagAttn": itself,
        "MixedAttn": itself * received,
        "SumAttn": itself + received,
        "CosSim": -sum(cosines),
    }[selection.removesuffix("Mean").removesuffix("Max")]


@pytest.mark.parametrize("num_prefix", [0, 1, 3])
@pytest.mark.parametrize("selection", OF_ATTENTION)
def test_scores(selection: str, num_prefix: int) -> None:
    attention = attention_map(2)
    ours = scores(attention, selection, num_prefix)
    for image in range(2):
        expected = [naive(attention[image], selection, token, num_prefix) for token in range(num_prefix, 8)]
        torch.testing.assert_close(ours[image, num_prefix:], torch.tensor(expected, dtype=torch.float64))
        torch.testing.assert_close(scores(attention[image], selection, num_prefix), ours[image])


@pytest.mark.parametrize("num_prefix", [0, 1, 5])
@pytest.mark.parametrize("sign", [1, -1])
def test_rank_keeps_prefix_tokens_in_front_and_in_order(num_prefix: int, sign: int) -> None:
    values = sign * torch.rand(3, 12, generator=torch.Generator().manual_seed(0)) * 1000
    values[:, :num_prefix] = torch.linspace(-500, 500, num_prefix)
    ordered, positions = rank(values, num_prefix)
    assert positions[:, :num_prefix].tolist() == [list(range(num_prefix))] * 3
    assert torch.equal(ordered[:, num_prefix:], values.gather(1, positions)[:, num_prefix:])
    assert (ordered.diff() <= 0).all()
    assert torch.equal(positions.sort(1).values, torch.arange(12).expand(3, -1))


def test_a_tie_keeps_the_current_order() -> None:
    values = torch.tensor([0.0, 0.0, 2.0, 0.0, 2.0, 1.0] + [0.0] * 60)
    assert rank(values, 1)[1].tolist() == [0, 2, 4, 5, 1, 3, *range(6, 66)]


def test_half_precision() -> None:
    values = torch.rand(200, generator=torch.Generator().manual_seed(0)).half() * 100
    assert rank(values, 5)[1][:5].tolist() == [0, 1, 2, 3, 4]
