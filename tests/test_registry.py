"""Every entry of each registry of ours says what it is and runs."""

import json
from typing import Any

import pytest
import torch
from artifacts import Command
from helpers import fitted, images_for, settings_of, tiny_vit

from gtp_models import METHODS, ConfigError, GTPConfig, apply, make_plan, make_settings, trace_tokens
from gtp_models.methods.gtp.graphs import GRAPHS
from gtp_models.methods.gtp.propagations import PROPAGATIONS
from gtp_models.methods.gtp.selections import SELECTIONS
from gtp_runtime.registry import Registry

REGISTRIES: dict[str, Registry[Any]] = {
    "method": METHODS,
    "selection": SELECTIONS,
    "graph": GRAPHS,
    "propagation": PROPAGATIONS,
}


@pytest.mark.parametrize("setting", REGISTRIES)
def test_ours(setting: str) -> None:
    registry = REGISTRIES[setting]
    assert registry.kind == setting
    assert registry.names()
    for name in registry.names():
        entry = registry[name]
        assert entry.name == name
        assert entry.summary and entry.summary == entry.summary.strip() and "\n" not in entry.summary
    assert len({registry[name].summary for name in registry.names()}) == len(registry.names())
    with pytest.raises(ConfigError, match=f"{setting}='Best'.*{', '.join(registry.names())}"):
        registry["Best"]


@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_runs(method: str) -> None:
    model = tiny_vit()
    settings = settings_of(method)
    plan = make_plan(model, settings)
    with torch.inference_mode(), trace_tokens(apply(model, settings)) as trace:
        assert torch.isfinite(model(images_for(model))).all()
    assert [step.propagated.shape[1] for step in trace] == list(plan.num_prop)
    assert make_settings(method, **json.loads(json.dumps(settings.to_dict()))) == settings


def refusal(graph: str, propagation: str, selection: str = "") -> str:
    """Why these entries mean nothing together; empty where they do."""
    edges, joined = GRAPHS[graph], PROPAGATIONS[propagation]
    if joined.one_receiver and not edges.one_receiver:
        return f"propagation={propagation!r} needs a graph that gives each token one receiver, and graph={graph!r}"
    if joined.uses_graph and edges.edges is None:
        return f"propagation={propagation!r} needs a graph: choose graph="
    if selection == "Fixed" and joined.joins:
        return f"propagation={propagation!r} adds a token"
    return ""


def test_what_is_refused_together() -> None:
    refused = {(graph, name) for graph in GRAPHS.names() for name in PROPAGATIONS.names() if refusal(graph, name)}
    assert refused == {
        ("None", "GraphProp"),
        ("None", "Merge"),
        ("Spatial", "Merge"),
        ("Semantic", "Merge"),
        ("Mixed", "Merge"),
        ("None", "MergeNorm"),
        ("Spatial", "MergeNorm"),
        ("Semantic", "MergeNorm"),
        ("Mixed", "MergeNorm"),
    }


@pytest.mark.parametrize("propagation", PROPAGATIONS.names())
@pytest.mark.parametrize("graph", GRAPHS.names())
@pytest.mark.parametrize("selection", SELECTIONS.names())
def test_all_combinations_of_the_axes(selection: str, graph: str, propagation: str) -> None:
    axes = {"selection": selection, "graph": graph, "propagation": propagation}
    why = refusal(graph, propagation, selection)
    if why:
        with pytest.raises(ConfigError) as caught:
            GTPConfig(**axes)  # type: ignore[arg-type]
        assert str(caught.value).startswith(why)
        return
    model = tiny_vit()
    config = fitted(model, GTPConfig(num_prop=3, num_neighbours=4, **axes))  # type: ignore[arg-type]
    images = images_for(model, 3)
    with torch.inference_mode(), trace_tokens(apply(model, config)) as together:
        logits = model(images)
        assert torch.isfinite(logits).all()
    assert [step.propagated.shape for step in together] == [(3, 3)] * 3
    with torch.inference_mode(), trace_tokens(model) as alone:
        torch.testing.assert_close(model(images[:1])[0], logits[0], rtol=0, atol=5e-5)
    assert all(torch.equal(one.kept[0], three.kept[0]) for one, three in zip(alone, together, strict=True))


def test_the_command_lists_them_all(command: Command) -> None:
    shown = command("methods")
    found = json.loads(command("methods", "--json").out)
    assert shown.last == "next: gtp-export export MODEL --method METHOD"
    assert list(found) == list(REGISTRIES)
    for setting, registry in REGISTRIES.items():
        assert found[setting] == {name: registry[name].summary for name in registry.names()}
        assert f"--{setting}" in shown.out
        for name in registry.names():
            assert any(line.split()[:1] == [name] for line in shown.out.splitlines()), name
            assert registry[name].summary in shown.out
