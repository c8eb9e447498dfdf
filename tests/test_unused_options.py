"""Options without an effect are refused where they were given; defaults and recipes keep theirs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from artifacts import Command

from gtp_exporters import ExportOptions, export
from gtp_models import GTPConfig, load_recipe
from gtp_models.errors import ConfigError
from gtp_models.recipes import Recipe


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"propagation": "Mean", "alpha": 0.2}, "alpha=0.2 has no effect: propagation='Mean' does not use it"),
        ({"propagation": "None", "graph": "Spatial"}, "graph='Spatial' has no effect: propagation='None'"),
        ({"propagation": "None", "num_neighbours": 4}, "num_neighbours=4 has no effect: propagation='None'"),
        (
            {"propagation": "GraphProp", "num_neighbours": 4, "graph": "Spatial"},
            "num_neighbours=4 has no effect: graph='Spatial'",
        ),
        ({"propagation": "None", "token_scale": True}, "token_scale=True has no effect: propagation='None'"),
        ({"propagation": "Mean", "token_scale": False}, "token_scale=False has no effect: propagation='Mean'"),
        ({"preset": "measured", "alpha": 0.2}, "alpha=0.2 has no effect: propagation='MergeNorm'"),
        ({"threshold": "calibrated", "sparsity": 1.0}, "threshold='calibrated' has no effect: sparsity is 1"),
    ],
)
def test_settings_without_an_effect(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_recipe("deit_s").settings(**given)


def test_defaults_presets_and_recipes_are_not_given() -> None:
    own = Recipe("mine", "", "", {"num_prop": 2, "alpha": 0.3, "num_neighbours": 4, "graph": "Mixed"})
    for propagation in ("Mean", "None"):
        assert own.settings(propagation=propagation) == GTPConfig(
            2, alpha=0.3, num_neighbours=4, propagation=propagation
        )
    assert own.settings(preset="measured").num_prop == 2
    assert own.settings(alpha=0.2, num_neighbours=3, graph="Mixed").num_prop == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--no-check", "--threads", "1"), "--threads has no effect with --no-check"),
        (("--seed", "0", "--schedule", "even"), "--seed"),
    ],
)
def test_options_of_export_without_an_effect(command: Command, options: tuple[str, ...], words: str) -> None:
    ran = command("export", "digits", *options)
    assert ran.code == 2
    assert words in ran.error


def test_calibration_images_without_a_threshold(tmp_path: Path) -> None:
    options = ExportOptions(calib_data=tmp_path)
    with pytest.raises(ConfigError, match="--calib-data"):
        export("digits", tmp_path / "out", settings=load_recipe("digits").settings(), options=options, check=False)


def test_a_timing_cache_for_rtx(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(name="rtx")
    monkeypatch.setattr("gtp_export.commands.build_engine.find_flavor", lambda wanted: found)
    ran = command("build-engine", "x.onnx", "--timing-cache", "cache")
    assert ran.code == 2
    assert "--timing-cache has no effect" in ran.error
