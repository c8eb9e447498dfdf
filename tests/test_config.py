"""GTP's settings: by themselves, and against the shape of a model."""

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
import torch
from artifacts import ROOT, python
from timm.models import VisionTransformer

from gtp_models.errors import ConfigError
from gtp_models.methods import METHODS, make_settings
from gtp_models.methods.gtp.config import GTPConfig, graphs_with
from gtp_models.methods.gtp.graphs import GRAPHS
from gtp_models.methods.settings import Settings
from gtp_models.plan import make_plan

CHOICES = {
    "selection": "MixedAttnMax",
    "propagation": "GraphProp",
    "graph": "Spatial",
    "threshold": "exact",
}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_prop": -1}, r"num_prop=-1.*from 0"),
        ({"num_prop": 8.0}, r"num_prop=8.0.*whole number"),
        ({"num_prop": True}, r"num_prop=True.*whole number"),
        ({"num_prop": "8"}, r"num_prop=.*whole number"),
        ({"num_prop": ()}, r"num_prop=\(\).*one for each layer"),
        ({"num_prop": (4, -1)}, r"num_prop=\(4, -1\).*from 0"),
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
        ({"num_prop": 8, "keep": 0.7}, r"num_prop and keep are alternatives: give one"),
        ({"keep": 0.7, "macs": 1e9}, r"keep and macs are alternatives: give one"),
        ({"num_prop": 8, "keep": 0.7, "macs": 1e9}, r"num_prop and keep and macs are alternatives"),
        ({"keep": 0}, r"keep=0: give a share .* in \(0, 1\]"),
        ({"keep": 1.1}, r"keep=1.1: give a share"),
        ({"keep": float("nan")}, r"keep=nan: give a share"),
        ({"keep": "0.7"}, r"keep='0.7': give a share"),
        ({"macs": 0.7}, r"macs=0.7: give a number of MACs above 1 .*for a share use keep"),
        ({"macs": float("inf")}, r"macs=inf: give a number"),
        ({"macs": True}, r"macs=True: give a number"),
        ({"graph": "None"}, r"needs a graph.*graph='Mixed'.*propagation='None'"),
    ],
)
def test_refused_with_a_way_out(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GTPConfig(**settings)


@pytest.mark.parametrize(("name", "choice"), CHOICES.items())
@pytest.mark.parametrize("value", ["Random", None, ["exact"]])
def test_unknown_choice_lists_the_known(name: str, choice: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{name}=.*{choice}"):
        GTPConfig(**{name: value})


@pytest.mark.parametrize("settings", [{"sparsity": 1}, {"sparsity": 1e-9}, {"alpha": 0}, {"num_prop": 0}])
def test_extremes_are_allowed(settings: dict[str, Any]) -> None:
    GTPConfig(**settings)


@pytest.mark.parametrize("propagation", ["None", "Mean"])
def test_no_graph_is_needed_without_graphprop(propagation: Any) -> None:
    config = GTPConfig(propagation=propagation, graph="None")
    assert not config.uses_graph
    assert not config.uses_neighbours


def test_what_uses_neighbours() -> None:
    assert GTPConfig(graph="Mixed").uses_neighbours
    assert GTPConfig(graph="Semantic").uses_neighbours
    assert not GTPConfig(graph="Spatial").uses_neighbours
    assert not GTPConfig(graph="Mixed", propagation="None").uses_neighbours


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


DEFAULTS = {"num_neighbours": 4}
NUMPYS: list[dict[str, Any]] = [
    {"num_prop": np.int64(8)},
    {"num_prop": (np.int64(4), np.int32(0), 8)},
    {"num_prop": [np.uint8(4), np.int16(8)]},
    {"keep": np.float32(0.75)},
    {"keep": np.float64(0.75)},
    {"macs": np.float32(3.5e9)},
    {"macs": np.int64(3_500_000_000)},
]
OF_GTP: list[dict[str, Any]] = [
    {"sparsity": np.float32(0.5)},
    {"alpha": np.float16(0.25)},
    {"alpha": np.int64(1)},
    {"num_neighbours": np.int64(4)},
    {"calibration": ((np.float32(0.5), np.float64(1.0)), ())},
]


def plain(value: Any) -> Any:
    """What numpy's number or numbers are in Python."""
    if isinstance(value, tuple | list):
        return tuple(plain(part) for part in value)
    return value.item() if isinstance(value, np.generic) else value


def check_numpy(method: str, settings: dict[str, Any]) -> None:
    made = make_settings(method, **settings)
    read = make_settings(method, **json.loads(json.dumps(made.to_dict())))
    assert made == read == make_settings(method, **{name: plain(value) for name, value in settings.items()})
    for name in settings:
        assert json.dumps(getattr(made, name)) == json.dumps(getattr(read, name))


@pytest.mark.parametrize("method", [name for name in METHODS.names() if name not in ("dense", "tome")])
@pytest.mark.parametrize("settings", NUMPYS, ids=str)
def test_numpys_numbers_are_numbers(method: str, settings: dict[str, Any]) -> None:
    check_numpy(method, settings)


@pytest.mark.parametrize("settings", OF_GTP, ids=str)
def test_numpys_numbers_are_numbers_of_gtp(settings: dict[str, Any]) -> None:
    check_numpy("gtp", settings)


def test_numpys_numbers_are_numbers_of_tome() -> None:
    """Without the checks of signatures that ``conftest`` adds to the file that ToMe's maths and settings share."""
    folder = str(ROOT / "tests")
    ran = python(f"sys.path.append({folder!r}); import test_config as t; [t.check_numpy('tome', n) for n in t.NUMPYS]")
    assert ran.code == 0, ran.err


def numbers(settings: Settings, depth: int = 3, tokens: int = 16) -> list[int]:
    """How many image tokens stand before each layer of a model and after the last: depth + 1 numbers."""
    columns = next(columns for columns in range(int(tokens**0.5), tokens + 1) if tokens % columns == 0)
    with torch.device("meta"):
        model = VisionTransformer(
            img_size=(8 * tokens // columns, 8 * columns), patch_size=8, embed_dim=24, depth=depth, num_heads=3
        )
    layers = make_plan(model, settings).layers
    return [layers[0].tokens_in - 1, *(layer.tokens_out - 1 for layer in layers)]


def test_one_number_a_layer() -> None:
    assert numbers(GTPConfig(num_prop=3), 4) == [16, 13, 10, 7, 4]
    assert numbers(GTPConfig(num_prop=(0, 1, 2))) == [16, 16, 15, 13]
    with pytest.raises(ConfigError, match=r"2 entries, .*3 layers"):
        numbers(GTPConfig(num_prop=(1, 2)))


def test_numbers() -> None:
    assert numbers(GTPConfig(num_prop=(0, 3, 5))) == [16, 16, 13, 8]
    assert numbers(GTPConfig(num_prop=(0, 3, 5), propagation="Mean")) == [16, 16, 14, 10]
    assert numbers(GTPConfig(num_prop=1, propagation="Mean"), 2) == [16, 16, 16]


@pytest.mark.parametrize("propagation", ["GraphProp", "Mean"])
@pytest.mark.parametrize(("depth", "tokens"), [(3, 16), (3, 17), (3, 18), (12, 196), (1, 9), (4, 12)])
def test_too_many_tokens_names_the_largest_that_fits(propagation: Any, depth: int, tokens: int) -> None:
    with pytest.raises(ConfigError, match=rf"at most {tokens - 1} ") as caught:
        numbers(GTPConfig(num_prop=tokens, propagation=propagation), depth, tokens)
    largest = int(str(caught.value).split("for all layers at most ")[1].split()[0])
    assert numbers(GTPConfig(num_prop=largest, propagation=propagation), depth, tokens)[-1] >= 1
    with pytest.raises(ConfigError):
        numbers(GTPConfig(num_prop=largest + 1, propagation=propagation), depth, tokens)


def test_too_many_tokens_names_the_layer() -> None:
    with pytest.raises(ConfigError, match=r"9 of the 9 .*layer 1 \(of 0 to 2\)") as caught:
        numbers(GTPConfig(num_prop=(7, 9, 0)))
    assert "for all layers" not in str(caught.value)


def test_too_many_neighbours() -> None:
    numbers(GTPConfig(num_prop=1, num_neighbours=15))
    numbers(GTPConfig(num_prop=1, num_neighbours=16, graph="Spatial"))
    with pytest.raises(ConfigError, match=r"at most 15, .*graph='Nearest'.*graph='Spatial'"):
        numbers(GTPConfig(num_prop=1, num_neighbours=16))


def test_eight_tokens_leave_where_nothing_is_said() -> None:
    assert [make_settings(name).num_prop for name in METHODS.names()] == [
        0 if name == "dense" else 8 for name in METHODS.names()
    ]
    assert GTPConfig(keep=0.7).num_prop is None


def test_resolved() -> None:
    config = GTPConfig(keep=0.7, schedule="early", **DEFAULTS)
    assert config.resolved((3, 2, 1)) == GTPConfig(num_prop=(3, 2, 1), **DEFAULTS)
    assert replace(config, keep=None, macs=1e6).resolved((1, 1, 1)) == GTPConfig(num_prop=(1, 1, 1), **DEFAULTS)
    assert GTPConfig(num_prop=3, schedule="even").resolved((3, 3, 3)) == GTPConfig(num_prop=3)
    assert GTPConfig(num_prop=3, schedule="late").resolved((2, 3, 4)) == GTPConfig(num_prop=(2, 3, 4))


def test_a_method_takes_its_own_settings_alone() -> None:
    assert make_settings("gtp", num_prop=3, alpha=0.2) == GTPConfig(num_prop=3, alpha=0.2)
    with pytest.raises(ConfigError, match=r"^drop .*alpha, graph: .*num_prop, keep, macs, schedule$"):
        make_settings("drop", num_prop=3, alpha=0.2, graph="Mixed")
    with pytest.raises(ConfigError, match=r"method='evit'.*dense, drop, gtp, tome"):
        make_settings("evit")
    for settings in ({"num_prop": 3}, {"keep": 0.7}, {"macs": 1e9}, {"schedule": "even"}):
        with pytest.raises(ConfigError, match="dense .*num_prop, keep, macs.*schedule"):
            make_settings("dense", **settings)


def test_remedies_name_what_the_registry_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert graphs_with("one_receiver") == "graph='Nearest'"
    monkeypatch.setitem(GRAPHS._entries, "Mine", replace(GRAPHS["Nearest"], name="Mine"))
    with pytest.raises(ConfigError, match="graph='Mine'.*graph='Nearest'"):
        GTPConfig(propagation="Merge")
