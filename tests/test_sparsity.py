import pytest
import torch
from torch import Tensor

from gtp_models.frame.attention import sparsify
from gtp_models.methods.gtp.sparsity import dropped_entries, exact_threshold, topk_size


def attention_map(tokens: int = 7) -> Tensor:
    return torch.randn(2, 3, tokens, tokens, generator=torch.Generator().manual_seed(0)).softmax(-1)


@pytest.mark.parametrize("tokens", [2, 7, 17])
@pytest.mark.parametrize("sparsity", [0.02, 0.3, 0.49, 0.5, 0.51, 0.6, 0.7, 0.9, 0.98])
def test_against_kthvalue(tokens: int, sparsity: float) -> None:
    attention = attention_map(tokens)
    k = int(tokens * tokens * (1 - sparsity))
    expected = attention.clone()
    if k:
        least = attention.flatten(-2).kthvalue(k).values[..., None, None]
        expected[attention < least] = 0
    assert torch.equal(sparsify(attention, exact_threshold(attention, sparsity)), expected)
    assert torch.equal(sparsify(attention[0], exact_threshold(attention[0], sparsity)), expected[0])


def test_k_is_computed_in_double_arithmetic_as_written() -> None:
    assert dropped_entries(10, 0.9) == int(100 * (1 - 0.9)) == 9
    assert dropped_entries(196, 0.6) == 15366


@pytest.mark.parametrize(("tokens", "sparsity"), [(7, 1.0), (7, 0.99), (1, 0.5)])
def test_nothing_is_dropped_where_k_is_0(tokens: int, sparsity: float) -> None:
    attention = attention_map(tokens)
    assert topk_size(tokens, sparsity) == 0
    assert exact_threshold(attention, sparsity) is None
    assert sparsify(attention, exact_threshold(attention, sparsity)) is attention


def test_both_ways_round_find_the_same_threshold() -> None:
    attention = attention_map()
    flat, entries = attention.flatten(-2), 49
    for k in range(1, entries):
        sparsity = 1 - (k + 0.5) / entries
        assert dropped_entries(7, sparsity) == k
        assert topk_size(7, sparsity) == min(k, entries - k + 1)
        least = exact_threshold(attention, sparsity)
        assert least is not None
        from_below = flat.topk(k, largest=False).values[..., -1:, None]
        from_above = flat.topk(entries - k + 1).values[..., -1:, None]
        assert torch.equal(least, from_below)
        assert torch.equal(least, from_above)


def test_ties_at_the_threshold_stay() -> None:
    attention = torch.tensor([[[0.1, 0.2], [0.2, 0.5]]])
    assert torch.equal(sparsify(attention, exact_threshold(attention, 0.3)), torch.tensor([[[0.0, 0.2], [0.2, 0.5]]]))
