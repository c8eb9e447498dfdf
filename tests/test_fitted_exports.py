"""Exports whose schedule is fitted: when, on which images, and what they say of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import Command
from PIL import Image

from gtp_exporters import ExportOptions, LimitError, export
from gtp_exporters.fitting import MOST, OWN, default_settings, fit_settings, fitting_images
from gtp_exporters.measuring import latency
from gtp_exporters.measuring.comparison import Budget, choose
from gtp_exporters.measuring.latency import BlockTimes, measure_costs
from gtp_exporters.report.page import plot_fitting
from gtp_exporters.subject import make_subject
from gtp_models import ConfigError, GTPConfig, Plan, Recipe, Settings, load_recipe, make_plan
from gtp_models.fitting import usual_schedule
from gtp_models.schedules import CLOSE, check_schedule, is_fitted, most_steps
from gtp_runtime import read_manifest

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 7}
IMAGES = 10
NO_JUDGES = np.empty((0, 32, 32, 3), np.uint8)


def tiny(**overrides: Any) -> Recipe:
    """Return a recipe of three layers over 16 patches, with random weights."""
    gtp = {"preset": "measured", "num_prop": 2}
    return Recipe("tiny", "tiny", "vit_tiny_patch16_224", gtp, TINY | overrides)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of small random images."""
    place = tmp_path / "mine"
    place.mkdir()
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / f"{number}.png")
    return place


def exported(recipe: Recipe, place: Path, settings: Any = None, **options: Any) -> Any:
    given = ExportOptions(dense=False, trace=False, **options)
    return export(recipe, place, settings=settings, weights="random", options=given, check=False, report=False).manifest


def settings_of(method: str) -> Settings:
    preset = {"preset": "measured"} if method == "gtp" else {}
    return tiny().settings(method, **preset, keep=0.6, schedule="fitted")


@pytest.mark.parametrize(("text", "most"), [("fitted", None), ("fitted:4", 4), ("steps:2", None), (None, None)])
def test_kinds(text: str | None, most: int | None) -> None:
    assert most_steps(text) == most
    assert is_fitted(text) == (text is not None and text.startswith("fitted"))


@pytest.mark.parametrize("text", ["fitted:0", "fitted:", "fitted:x", "fitted+aligned", "fitted:2+aligned:8"])
def test_wrong_kinds(text: str) -> None:
    with pytest.raises(ConfigError, match="fitted"):
        check_schedule(text)


def test_a_schedule_that_is_not_fitted_has_no_plan() -> None:
    subject = make_subject(tiny(), "random", 0, ExportOptions())
    with pytest.raises(ConfigError, match=r"--calib-data.*fit_schedule"):
        make_plan(subject.model, GTPConfig.measured(keep=0.7, schedule="fitted"))


def test_images_make_it_the_default(folder: Path) -> None:
    options = ExportOptions(calib_data=folder)
    assert default_settings(tiny(), options).schedule == "fitted"
    assert default_settings(tiny(), options, keep=0.6).schedule == "fitted"
    assert default_settings(tiny(), ExportOptions()).schedule == GTPConfig.measured().schedule
    assert default_settings(replace(tiny(), calibration=folder), ExportOptions()).schedule == "fitted"
    assert default_settings(tiny(), options, schedule="steps:2").schedule == "steps:2"
    assert default_settings(tiny(), options, num_prop=(0, 3, 2)).schedule is None
    assert default_settings(tiny(), options, preset="paper").schedule is None
    assert default_settings(tiny(), options, "tome").schedule is None
    assert default_settings(tiny(), options, "tome", schedule="fitted:2").schedule == "fitted:2"
    own = replace(tiny(), gtp={"preset": "measured", "keep": 0.7, "schedule": "even"})
    assert default_settings(own, options).schedule == "even"
    assert default_settings(load_recipe("digits"), ExportOptions()).schedule == "fitted"


@pytest.mark.parametrize(
    ("method", "overrides"),
    [("gtp", {"num_classes": 0}), ("gtp", {}), ("tome", {}), ("gtp", {"class_token": False, "global_pool": "avg"})],
)
def test_a_schedule_is_fitted(method: str, overrides: dict[str, Any], folder: Path) -> None:
    subject = make_subject(tiny(**overrides), "random", 0, ExportOptions())
    settings = settings_of(method)
    images = fitting_images(subject, settings, folder, NO_JUDGES, is_own=False)
    fitted = fit_settings(subject, settings, images, seconds=60)
    info = fitted.info
    assert (info.images, info.count, info.seed, info.seconds) == (folder.name, IMAGES, 0, 60)
    assert info.measure == ("divergence" if subject.classes else "squared_error")
    assert tuple(info.num_prop) == make_plan(subject.model, fitted.settings).num_prop
    assert info.budget == {"keep": 0.6}
    assert info.usual_distance is None or info.distance <= info.usual_distance
    assert {curve.layer for curve in info.curves} == {0, 1, 2}
    assert info.cost == pytest.approx(make_plan(subject.model, fitted.settings).ratio)
    assert info.cost <= 0.6 + CLOSE, "as much as the usual schedule may take"
    if method == "gtp":  # tome merges at most half of a layer's tokens: too few for one step
        one = fit_settings(subject, replace(settings, schedule="fitted:1"), images).info
        assert (sum(map(bool, one.num_prop)), one.schedule) == (1, "fitted:1")


def test_an_export_is_fitted(folder: Path, tmp_path: Path) -> None:
    settings = GTPConfig.paper(num_neighbours=4, keep=0.7, schedule="fitted", sparsity=0.7, threshold="calibrated")
    manifest = exported(tiny(), tmp_path / "out", settings, calib_data=folder)
    fitting = manifest.fitting
    assert fitting.num_prop == manifest.num_prop == manifest.settings["num_prop"]
    calibrated = [bool(layer) for layer in manifest.settings["calibration"]]
    assert calibrated == [bool(amount) for amount in fitting.num_prop], "thresholds of the layers that were fitted"
    assert read_manifest(tmp_path / "out").fitting == fitting
    assert plot_fitting(manifest).count("<circle") > 3
    assert plot_fitting(replace(manifest, fitting=None)) == ""


def test_judges_are_not_fitted_on(folder: Path) -> None:
    subject = make_subject(tiny(), "random", 0, ExportOptions())
    settings = GTPConfig.measured(schedule="fitted")
    paths = sorted(folder.iterdir())
    judges = np.stack([subject.preprocessing.pixels(path) for path in paths[:4]])
    images = fitting_images(subject, settings, folder, judges, is_own=False)
    assert (len(images.images), images.origin) == (IMAGES - 4, folder.name)
    every = np.stack([subject.preprocessing.pixels(path) for path in paths])
    with pytest.raises(ConfigError, match="--calib-data"):
        fitting_images(subject, settings, folder, every, is_own=False)
    digits = make_subject(load_recipe("digits"), "pretrained", 0, ExportOptions())
    own = fitting_images(digits, settings, digits.built.recipe.calibration, every, is_own=True)
    assert (len(own.images), own.origin) == (MOST, OWN)


@pytest.mark.parametrize("form", [{"sparsity": 0.7, "threshold": "calibrated"}, {"selection": "Fixed"}])
def test_steps_are_timed_as_they_will_run(
    form: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thresholds and fixed tokens come from a calibration, which has not been at that time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    timed: list[Settings] = []

    def seconds(self: Any, plans: list[Plan]) -> list[float]:
        timed.extend(plan.settings for plan in plans)
        return [1.0] * len(plans)

    monkeypatch.setattr(latency._Timing, "_seconds", seconds)
    subject = make_subject(tiny(), "random", 0, ExportOptions())
    preset = GTPConfig.measured if "selection" in form else GTPConfig.paper
    measure_costs(subject, preset(keep=0.8, num_neighbours=4, **form), ExportOptions())
    reducing = [settings for settings in timed if isinstance(settings, GTPConfig)]
    assert reducing and not any(settings.needs_calibration for settings in reducing)
    assert {(settings.threshold, settings.selection) for settings in reducing} == {
        (form.get("threshold", "exact"), form.get("selection", "MixedAttnMax"))
    }


def test_times_by_tokens() -> None:
    times = BlockTimes(8, (16, 32, 50), (1.0, 2.0, 3.8), between=1.25)
    assert [times(16), times(24), times(50), times(8)] == pytest.approx([1.0, 1.5, 3.8, 0.5])
    assert times(25) == pytest.approx(1.25 * 1.5625), "its tiles are not full"


@pytest.mark.full
def test_latency_as_the_budget(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    subject = make_subject(tiny(), "random", 0, ExportOptions())
    settings, options = GTPConfig.measured(schedule="fitted"), ExportOptions(target="onnxruntime")
    costs = measure_costs(subject, settings, options)
    (kept,) = (tmp_path / "gtp-export" / "token-times").iterdir()
    with monkeypatch.context() as without:
        without.setattr(latency, "time_in_turn", None)  # cannot be called
        other = make_subject(tiny(), "random", 1, ExportOptions())
        again = measure_costs(other, replace(settings, num_prop=3), options)
        assert [again.block, again.step(17, 8)] == [costs.block, costs.step(17, 8)], "other weights take as long"
        kept.write_text("{}", "utf-8")
        with pytest.raises(TypeError):
            measure_costs(subject, settings, options)
    assert costs.dense == pytest.approx(costs.backbone((0, 0, 0))) and costs.dense > 0
    assert costs.step(17, 8) >= 0
    with pytest.raises(LimitError, match="tensorrt"):
        measure_costs(subject, settings, replace(options, target="tensorrt"))
    images = fitting_images(subject, settings, folder, NO_JUDGES, is_own=False)
    tokens = BlockTimes(4, (4, 17), (4.0, 17.0))
    free = replace(costs, block=tokens, step=lambda tokens, amount: 0.0)
    info = fit_settings(subject, settings, images, latency=0.9, costs=free).info
    assert (info.budget, info.cost <= 0.9) == ({"latency": 0.9}, True)
    dear = replace(free, step=lambda tokens, amount: free.dense)
    with pytest.raises(ConfigError):
        fit_settings(subject, settings, images, latency=0.9, costs=dear)


@pytest.mark.parametrize("name", ["latency", "fit_seconds"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), "1"])
def test_wrong_options(name: str, value: Any) -> None:
    with pytest.raises(LimitError, match=name):
        ExportOptions(**{name: value})


@pytest.mark.parametrize("options", [{"latency": 0.8}, {"fit_seconds": 5.0}])
def test_options_that_have_no_effect(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="--schedule fitted"):
        exported(tiny(), tmp_path / "out", GTPConfig.measured(), **options)


def test_without_images_there_is_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--calib-data"):
        exported(tiny(), tmp_path / "out", GTPConfig.measured(schedule="fitted"))


def test_the_command(command: Command, folder: Path, tmp_path: Path) -> None:
    recipe, place = tmp_path / "tiny.yaml", tmp_path / "out"
    values = {"timm": "vit_tiny_patch16_224", "model_args": TINY, "gtp": {"preset": "measured", "num_prop": 2}}
    recipe.write_text(json.dumps(values), "utf-8")
    base = ("export", recipe, "--weights", "random", "--no-check", "--no-dense", "-o", place)
    assert command(*base, "--schedule", "fitted").code == 2
    assert command(*base, "--schedule", "fitted:0").code == 2
    assert command(*base, "--keep", "0.7", "--latency", "0.8").code == 2
    ran = command(*base)
    assert ran.code == 0 and "--calib-data" in ran.err, "a note says what would bring more"
    ran = command(*base, "--calib-data", folder, "--json", "--keep", "0.7")
    document = json.loads(ran.out)
    assert document["fitting"]["budget"] == {"keep": 0.7} and document["fitting"]["count"] == IMAGES
    shown = command("inspect", place).out
    assert "fitted" in shown and folder.name in shown
    assert "data:image/svg+xml" in (place / "report.html").read_text("utf-8")


@pytest.mark.parametrize(("output", "schedule"), [("logits", "safe+aligned"), ("map", "inner+aligned")])
def test_the_usual_schedule_is_of_what_is_put_out(output: str, schedule: str) -> None:
    recipe = replace(load_recipe("digits"), calibration=None)
    options = ExportOptions(output=output)
    assert default_settings(recipe, options, preset="measured", keep=0.7).schedule == schedule
    assert default_settings(recipe, options, preset="measured", keep=0.7, schedule="steps:2").schedule == "steps:2"
    assert default_settings(recipe, options, preset="paper", num_prop=4).schedule is None
    assert usual_schedule(GTPConfig.measured(keep=0.7, schedule="fitted"), restore=output == "map") == schedule
    assert choose("measured", recipe, Budget(keep=0.7), output).settings(recipe, Budget(keep=0.7)).schedule == schedule
