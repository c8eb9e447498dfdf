import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from gtp_models.errors import ConfigError
from gtp_models.methods.gtp.config import GTPConfig

CHOICES = {
    "selection": "MixedAttnMax",
    "propagation": "GraphProp",
    "graph": "Spatial",
    "threshold": "exact",
}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_prop": -1}, r"num_prop=-1.*0 or more"),
        ({"num_prop": 8.0}, r"num_prop=8.0.*whole number"),
        ({"num_prop": True}, r"num_prop=True.*whole number"),
        ({"num_prop": "8"}, r"num_prop=.*whole number"),
        ({"num_prop": ()}, r"num_prop=\(\).*one a layer"),
        ({"num_prop": (4, -1)}, r"num_prop=\(4, -1\).*0 or more"),
        ({"sparsity": 0}, r"sparsity=0 is outside \(0, 1\].*1 keeps all"),
        ({"sparsity": 1.1}, r"sparsity=1.1 is outside"),
        ({"sparsity": float("nan")}, r"sparsity=nan is outside"),
        ({"sparsity": "0.5"}, r"sparsity='0.5'"),
        ({"alpha": -0.1}, r"alpha=-0.1.*at least 0"),
        ({"alpha": float("inf")}, r"alpha=inf.*finite"),
        ({"alpha": float("nan")}, r"alpha=nan.*finite"),
        ({"alpha": False}, r"alpha=False"),
        ({"num_neighbours": 0}, r"num_neighbours=0.*at least 1.*graph='Spatial'"),
        ({"num_neighbours": 2.0}, r"num_neighbours=2.0"),
        ({"token_scale": "off"}, r"token_scale='off'.*True or False"),
        ({"graph": "None"}, r"needs a graph.*graph='Mixed'.*propagation='None'"),
    ],
)
def test_refused_with_a_way_out(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GTPConfig(**settings)


@pytest.mark.parametrize(("name", "choice"), CHOICES.items())
@pytest.mark.parametrize("value", ["Random", None, ["exact"]])
def test_unknown_choice_lists_the_known(name: str, choice: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{name}=.* is unknown: choose one of .*{choice}"):
        GTPConfig(**{name: value})


@pytest.mark.parametrize("settings", [{"sparsity": 1}, {"sparsity": 1e-9}, {"alpha": 0}, {"num_prop": 0}])
def test_extremes_are_allowed(settings: dict[str, Any]) -> None:
    GTPConfig(**settings)


@pytest.mark.parametrize("propagation", ["None", "Mean"])
def test_no_graph_is_needed_without_graphprop(propagation: Any) -> None:
    config = GTPConfig(propagation=propagation, graph="None")
    assert not config.uses_graph
    assert not config.uses_semantics


def test_semantic_edges() -> None:
    assert GTPConfig(graph="Mixed").uses_semantics
    assert GTPConfig(graph="Semantic").uses_semantics
    assert not GTPConfig(graph="Spatial").uses_semantics
    assert not GTPConfig(graph="Mixed", propagation="None").uses_semantics


def test_frozen_and_hashable() -> None:
    config = GTPConfig(num_prop=[4, 8])  # type: ignore[arg-type]
    assert config.num_prop == (4, 8)
    assert hash(config) == hash(GTPConfig(num_prop=(4, 8)))
    with pytest.raises(FrozenInstanceError):
        config.alpha = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("num_prop", [8, (4, 0, 8)])
def test_round_trip_through_json(num_prop: Any) -> None:
    config = GTPConfig(num_prop, 0.5, 0.3, 4, False, "CosSimMean", "Mean", "None")
    assert GTPConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_schedule() -> None:
    assert GTPConfig(num_prop=3).schedule(4) == (3, 3, 3, 3)
    assert GTPConfig(num_prop=(0, 1, 2)).schedule(3) == (0, 1, 2)
    with pytest.raises(ConfigError, match=r"2 entries, but the model has 3 layers: give 3 entries, or one number"):
        GTPConfig(num_prop=(1, 2)).schedule(3)


def test_counts() -> None:
    assert GTPConfig(num_prop=(0, 3, 5)).counts(3, 16) == [16, 16, 13, 8]
    assert GTPConfig(num_prop=(0, 3, 5), propagation="Mean").counts(3, 16) == [16, 16, 14, 10]
    assert GTPConfig(num_prop=1, propagation="Mean").counts(2, 16) == [16, 16, 16]


@pytest.mark.parametrize("propagation", ["GraphProp", "Mean"])
@pytest.mark.parametrize(("depth", "tokens"), [(3, 16), (3, 17), (3, 18), (12, 196), (1, 9), (4, 12)])
def test_too_many_tokens_names_the_largest_that_fits(propagation: Any, depth: int, tokens: int) -> None:
    with pytest.raises(ConfigError, match=r"at least one must stay") as caught:
        GTPConfig(num_prop=tokens, propagation=propagation).counts(depth, tokens)
    largest = int(str(caught.value).split("at most ")[1].split()[0])
    assert GTPConfig(num_prop=largest, propagation=propagation).counts(depth, tokens)[-1] >= 1
    with pytest.raises(ConfigError):
        GTPConfig(num_prop=largest + 1, propagation=propagation).counts(depth, tokens)


def test_too_many_tokens_names_the_layer() -> None:
    with pytest.raises(ConfigError, match=r"takes 9 of the 9 image tokens left in layer 1 \(of 0 to 2\)"):
        GTPConfig(num_prop=(7, 9, 0)).counts(3, 16)


def test_too_many_neighbours() -> None:
    GTPConfig(num_prop=1, num_neighbours=15).counts(3, 16)
    GTPConfig(num_prop=1, num_neighbours=16, graph="Spatial").counts(3, 16)
    with pytest.raises(ConfigError, match=r"16 image tokens: give at most 15, or use graph='Spatial'"):
        GTPConfig(num_prop=1, num_neighbours=16).counts(3, 16)
