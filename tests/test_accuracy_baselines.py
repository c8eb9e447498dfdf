"""PiToMe and ATC of benchmarks/: against their papers' algorithms done slowly, token by token."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers import images_for, noise_of, prefixes, tiny_vit
from scripts import Script
from torch import Tensor

from gtp_models import ConfigError, apply, make_plan, make_settings
from gtp_models.frame.tokens import Tokens
from gtp_models.frame.trace import Layer, recording

FORMS: dict[str, dict[str, Any]] = {"pitome": {}, "atc": {}, "atc-tokens": {"measure": "tokens"}}
forms = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def baselines(script: Script) -> Any:
    return script("baselines")


@torch.inference_mode()
def run(model: Any, images: Tensor) -> tuple[Tensor, list[Layer]]:
    with recording(model.blocks, keep=lambda layer: layer) as layers:
        logits = model(images)
    return logits, list(layers)


@forms
@prefixes
@pytest.mark.parametrize("batch", [1, 3])
def test_counts_and_mass(baselines: Any, form: str, prefix: dict[str, Any], batch: int) -> None:
    model = tiny_vit(**prefix)
    plan = make_plan(model, make_settings(form.partition("-")[0], num_prop=(4, 0, 5), **FORMS[form]))
    logits, layers = run(apply(model, plan), images_for(model, batch))
    assert logits.shape == (batch, 5)
    standing = torch.arange(16).expand(batch, -1)
    for planned, layer in zip(plan.layers, layers, strict=True):
        tokens = layer.tokens
        assert tokens.count == planned.tokens_out
        assert tokens.scale is not None
        torch.testing.assert_close(tokens.scale.sum(-1).flatten(), torch.full((batch,), 16.0 + model.num_prefix_tokens))
        left = tokens.image_ids()[:, :0] if layer.left is None else layer.left.reshape(batch, -1) - tokens.num_prefix
        assert torch.equal(torch.cat([tokens.image_ids(), left], 1).sort(1).values, standing)
        standing = tokens.image_ids()
        assert torch.equal(standing.sort(1).values, standing), "those that stay keep their order"


@forms
def test_one_image_equals_its_row_of_a_batch(baselines: Any, form: str) -> None:
    model = apply(tiny_vit(), make_settings(form.partition("-")[0], num_prop=4, **FORMS[form]))
    images = images_for(model, 3)
    together = run(model, images)[0]
    for row in range(3):
        torch.testing.assert_close(run(model, images[row : row + 1])[0][0], together[row], rtol=0, atol=5e-5)


def test_merging_keeps_the_mean(script: Script) -> None:
    merging: Any = script("baselines.merging")
    x, sizes = noise_of(2, 6, 4), torch.tensor([[1.0, 2, 1, 3, 1, 1], [1.0, 1, 1, 1, 1, 5]])
    tokens = Tokens(x.flatten(0, 1), 2, num_prefix=1, scale=sizes[:, None])
    into = torch.tensor([[0, 1, 1, 3, 4, 3], [0, 5, 2, 2, 4, 5]])
    layer = merging.merge(tokens, into)
    after, masses = layer.tokens.x.view(2, 4, 4), layer.tokens.scale
    torch.testing.assert_close((masses @ after)[:, 0], (sizes[:, None] @ x)[:, 0])
    assert masses[:, 0].tolist() == [[1, 3, 4, 1], [1, 2, 1, 6]]
    torch.testing.assert_close(after[0, 2], (3 * x[0, 3] + x[0, 5]) / 4)
    assert (layer.tokens.ids.tolist(), layer.left.tolist()) == ([[0, 1, 3, 4], [0, 2, 4, 5]], [[2, 5], [1, 3]])
    assert layer.receivers.tolist() == [[1, 3], [5, 2]]


def slow_pitome(keys: list[list[float]], amount: int, margin: float) -> dict[int, int]:
    """Return which token merges into which."""
    size = [math.hypot(*key) for key in keys]
    cosine = [
        [sum(a * b for a, b in zip(one, other, strict=True)) / size[i] / size[j] for j, other in enumerate(keys)]
        for i, one in enumerate(keys)
    ]
    felt = [[x if x >= margin else math.exp(x - margin) - 1 for x in row] for row in cosine]
    energy = [sum(x for j, x in enumerate(row) if j != i) for i, row in enumerate(felt)]
    order = sorted(range(len(keys)), key=lambda i: -energy[i])[: 2 * amount]
    return {token: max(order[1::2], key=lambda j: cosine[token][j]) for token in order[::2]}


@pytest.mark.parametrize("margin", [0.9, 0.3, 0.0])
def test_pitome_matches_as_the_paper_says(script: Script, margin: float) -> None:
    pitome: Any = script("baselines.pitome")
    keys = noise_of(3, 12, 4).double()
    into = pitome.match(keys, 2, 4, margin)
    for image, found in zip(keys, into.tolist(), strict=True):
        wanted = {i + 2: j + 2 for i, j in slow_pitome(image[2:].tolist(), 4, margin).items()}
        assert {i: j for i, j in enumerate(found) if i != j} == wanted


def test_pitome_sees_how_deep_it_is(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    pitome: Any = script("baselines.pitome")
    seen, match = [], pitome.match
    monkeypatch.setattr(pitome, "match", lambda *given: (seen.append(given[-1]), match(*given))[1])
    model = apply(tiny_vit(), make_settings("pitome", num_prop=2))
    model(images_for(model))
    assert seen == pytest.approx([0.9, 0.6, 0.3])
    with pytest.raises(ConfigError, match=r"5 of the 6 .*at most 3"):
        apply(model, make_settings("pitome", num_prop=5))


def slow_clusters(distances: np.ndarray, amount: int) -> list[int]:
    clusters = [[token] for token in range(len(distances))]
    for _ in range(amount):
        pairs = [(a, b) for a in range(len(clusters)) for b in range(a)]
        a, b = min(pairs, key=lambda pair: distances[np.ix_(clusters[pair[0]], clusters[pair[1]])].mean())
        clusters[b] += clusters.pop(a)
    return [min(next(cluster for cluster in clusters if token in cluster)) for token in range(len(distances))]


@pytest.mark.parametrize("amount", [1, 5, 10])
def test_atc_clusters_by_average_linkage(script: Script, amount: int) -> None:
    atc: Any = script("baselines.atc")
    points = np.random.default_rng(0).normal(size=(11, 3))
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    assert atc.clusters(distances, amount).tolist() == slow_clusters(distances, amount)
    with pytest.raises(ConfigError, match=r"measure='values'.*keys, tokens"):
        atc.ATCSettings(4, measure="values")
