"""ToMe against the paper's algorithm (arXiv 2210.09461, section 3) done slowly, image by image, edge by edge."""

from typing import Any

import pytest
import torch
from helpers import images_for, prefixes, tiny_vit
from scripts import Script
from torch import Tensor, nn

from gtp_models.errors import ConfigError
from gtp_models.frame.patch import trace_tokens
from gtp_models.frame.tokens import Tokens
from gtp_models.frame.trace import recording
from gtp_models.methods.apply import apply
from gtp_models.methods.tome import ToMeSettings
from gtp_models.plan import model_shape

NO_CLASS = {"class_token": False, "global_pool": "avg"}
Group = tuple[int, ...]  # the patches that a token stands for, the one that received the others first


class SlowToMe(nn.Module):
    """timm's blocks with token merging; ``groups`` holds, for each image and layer, what each token stands for.

    In the end each patch gets the token that stands for it, so that pooling is over all patches.
    """

    def __init__(self, blocks: nn.Sequential, schedule: tuple[int, ...], prefix: int) -> None:
        super().__init__()
        self.blocks, self.schedule, self.prefix = blocks, schedule, prefix
        self.groups: list[list[list[Group]]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.groups = [[] for _ in x]
        return torch.stack([self.run(image, layers) for image, layers in zip(x, self.groups, strict=True)])

    def run(self, x: Tensor, layers: list[list[Group]]) -> Tensor:
        groups: list[Group] = [(place - self.prefix,) for place in range(len(x))]
        for block, amount in zip(self.blocks, self.schedule, strict=True):
            sizes = torch.tensor([float(len(group)) for group in groups])
            mixed, keys = attention(block.attn, block.norm1(x), sizes)
            x = x + block.ls1(mixed)
            x, groups = merge(x, keys, groups, self.prefix, amount)
            x = x + block.ls2(block.mlp(block.norm2(x)))
            layers.append(groups[self.prefix :])
        return torch.cat([token.expand(len(group), -1) for token, group in zip(x, groups, strict=True)])


def attention(attn: Any, x: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """A key that stands for s patches counts s times; also returns the mean of the heads' keys."""
    query, key, value = attn.qkv(x).chunk(3, dim=-1)
    heads = []
    for of_head in torch.arange(attn.attn_dim).chunk(attn.num_heads):
        weights = sizes * (query[:, of_head] @ key[:, of_head].T * attn.scale).exp()
        heads.append(weights / weights.sum(1, keepdim=True) @ value[:, of_head])
    return attn.proj(torch.cat(heads, 1)), torch.stack(key.chunk(attn.num_heads, dim=1)).mean(0)


def merge(x: Tensor, keys: Tensor, groups: list[Group], prefix: int, amount: int) -> tuple[Tensor, list[Group]]:
    if not amount:
        return x, groups
    edges = []
    for one in even(prefix, len(x)):
        similar = {other: cosine(keys[one], keys[other]) for other in odd(prefix, len(x))}
        best = max(similar, key=lambda other: similar[other])
        edges.append((similar[best], one, best))
    sums = {token: x[token] * len(group) for token, group in enumerate(groups)}
    members = dict(enumerate(groups))
    for _, one, other in sorted(edges, reverse=True)[:amount]:
        sums[other], members[other] = sums[other] + sums.pop(one), members[other] + members.pop(one)
    order = [*range(prefix), *even(prefix, len(x)), *odd(prefix, len(x))]
    order = [token for token in order if token in members]
    return torch.stack([sums[token] / len(members[token]) for token in order]), [members[token] for token in order]


def even(prefix: int, count: int) -> list[int]:
    return [token for token in range(prefix, count) if token % 2 == 0]


def odd(prefix: int, count: int) -> list[int]:
    return [token for token in range(prefix, count) if token % 2 == 1]


def cosine(left: Tensor, right: Tensor) -> float:
    return float(left @ right / (left.norm() * right.norm()))


@prefixes
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("num_prop", [(3, 3, 3), (0, 5, 2), (8, 4), (6, 0, 0)], ids=str)
@torch.no_grad()
def test_equals_the_paper(prefix: dict[str, Any], num_prop: tuple[int, ...], batch: int) -> None:
    model = tiny_vit(**prefix, depth=len(num_prop))
    images, plain = images_for(model, batch), model.blocks
    slow = model.blocks = SlowToMe(plain, num_prop, model.num_prefix_tokens)
    expected = model(images)
    model.blocks = plain
    apply(model, ToMeSettings(num_prop=num_prop))
    with trace_tokens(model) as trace, recording(model.blocks, keep=lambda layer: sizes_of(layer.tokens)) as sizes:
        logits = model(images)
    assert float((logits - expected).abs().max()) < 1e-4
    for image, layers in enumerate(slow.groups):
        standing = set(range(16))
        for step, size, groups in zip(trace, sizes, layers, strict=True):
            staying = [group[0] for group in groups]
            assert step.kept[image].tolist() == staying
            assert size[image].tolist() == [len(group) for group in groups]
            assert set(step.propagated[image].tolist()) == standing - set(staying)
            standing = set(staying)


def sizes_of(tokens: Tokens) -> Tensor:
    scaled = tokens.scaled().scale
    assert scaled is not None
    return scaled.reshape(tokens.batch, -1)[:, tokens.num_prefix :]


@pytest.mark.parametrize(("prefix", "most"), [(0, 8), (1, 8), (2, 8), (3, 8), (5, 8)])
def test_each_even_token_may_merge_and_no_more(prefix: int, most: int) -> None:
    model = tiny_vit(**NO_CLASS, reg_tokens=prefix)
    apply(model, ToMeSettings(num_prop=(most, 0, 0)))
    with trace_tokens(model) as trace:
        model(images_for(model))
    assert trace[0].kept.tolist() == [list(range(1 - prefix % 2, 16, 2))] * 2, "the tokens of odd places"
    with pytest.raises(ConfigError, match=f"{most + 1} of the 16 .*layer 0 .*at most {most} "):
        apply(model, ToMeSettings(num_prop=(most + 1, 0, 0)))
    with pytest.raises(ConfigError, match="5 of the 8 .*layer 2 .*at most 4 "):
        apply(model, ToMeSettings(num_prop=(most, 0, 5)))


@pytest.mark.parametrize(("wanted", "given"), [(3, (3, 3, 3)), (5, (5, 5, 3)), (9, (8, 4, 2))])
def test_the_benchmarks_clamp_a_schedule(script: Script, wanted: int, given: tuple[int, ...]) -> None:
    model = tiny_vit()
    settings = script("grids").clamped(ToMeSettings(num_prop=wanted), model_shape(model))
    assert settings.num_prop == given
    assert apply(model, settings)(images_for(model)).shape == (2, 5)
