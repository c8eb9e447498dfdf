from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm

from gtp_models.errors import ConfigError, UnknownModelError
from gtp_models.methods import METHODS, make_settings
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.plan import make_plan
from gtp_models.recipes import Recipe, load_recipe, recipe_names
from gtp_models.timm_models import check_timm_name
from gtp_models.weights import build_model, outline

every = pytest.mark.parametrize("name", recipe_names())


def recipe_file(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_names() -> None:
    assert {"deit_s", "deit_b", "digits"} <= set(recipe_names())
    assert recipe_names() == sorted(recipe_names())


@every
def test_recipe_names_a_model_of_timm(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.title
    check_timm_name(recipe.timm)
    assert recipe.weights or recipe.timm in timm.list_pretrained()  # with a tag: timm's choice may change
    for path in (recipe.weights, recipe.images):
        assert path is None or path.exists()


@every
def test_settings_fit_the_model(name: str) -> None:
    recipe = load_recipe(name)
    model = outline(recipe)
    layers = make_plan(model, recipe.settings()).layers
    assert layers[-1].tokens_out < layers[0].tokens_in
    if isinstance(recipe.labels, list):
        assert len(recipe.labels) == model.num_classes
    if "dense_top1" in recipe.reference:
        assert "in1k" in recipe.timm  # whose class names are ImageNet's without being said
        assert recipe.reference["dense_source"]


@every
def test_a_recipe_saves_macs_but_not_too_many(name: str) -> None:
    recipe = load_recipe(name)
    model = outline(recipe)
    ours = make_plan(model, recipe.settings())
    assert 0.6 <= ours.total / ours.dense <= 0.8


def test_published_settings_of_deit_b_are_valid() -> None:
    recipe = load_recipe("deit_b")
    model = outline(recipe)
    for row in recipe.reference["gtp"]:
        settings = {name: value for name, value in row.items() if name != "top1"}
        assert (
            make_plan(model, recipe.settings(preset="paper", **settings)).layers[-1].tokens_out
            == 197 - 12 * row["num_prop"]
        )


def test_overrides() -> None:
    config = load_recipe("deit_s").settings(preset="paper", num_prop=(1, 2), alpha=None, token_scale=False)
    assert isinstance(config, GTPConfig)
    assert (config.num_prop, config.alpha, config.token_scale) == ((1, 2), 0.1, False)


def test_unknown_setting() -> None:
    with pytest.raises(ConfigError, match=r"gtp .*num_props: .*num_prop, keep, "):
        load_recipe("deit_s").settings(num_props=3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("deit_small", r"no recipe is called 'deit_small': did you mean .*deit_s.*\?; timm:NAME selects any"),
        ("zzz", r"there are clip_b16, .*deit_s, .* and \d+ more; timm:NAME"),
        ("timm:deit_smal_patch16_224", r"timm has no model .*did you mean .*deit_small_patch16_224"),
        ("timm:deit_small_patch16_224.fb", r"timm has no weights .*did you mean deit_small_patch16_224.fb_in1k\?"),
        ("nowhere.yaml", "cannot read the recipe nowhere.yaml: No such file"),
    ],
)
def test_unknown_model_offers_the_closest(model: str, message: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        load_recipe(model)
    assert caught.match(message)


def test_any_timm_model() -> None:
    recipe = load_recipe("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert recipe.name == "vit_tiny_patch16_224_augreg_in21k_ft_in1k"
    assert recipe.timm == "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    settings = recipe.settings()
    assert isinstance(settings, GTPConfig)
    assert (settings.keep, settings.described()["preset"]) == (0.743, "measured")


def test_recipe_file(tmp_path: Path) -> None:
    text = "timm: vit_tiny_patch16_224\ngtp: {num_prop: [1, 2], selection: CosSimMax}\nweights: w.pth\nlabels:\n"
    recipe = load_recipe(recipe_file(tmp_path, text))
    assert (recipe.name, recipe.title, recipe.labels) == ("mine", "vit_tiny_patch16_224", None)
    assert recipe.weights == tmp_path / "w.pth"
    assert recipe.settings().num_prop == (1, 2)


@pytest.mark.parametrize("text", ["timm: vit_tiny_patch16_224\ngtp:\n", "timm: vit_tiny_patch16_224\n"])
def test_recipe_file_without_settings_has_those_of_its_timm_model(tmp_path: Path, text: str) -> None:
    recipe, of_timm = load_recipe(recipe_file(tmp_path, text)), load_recipe("timm:vit_tiny_patch16_224")
    assert recipe.gtp and recipe.settings() == of_timm.settings()
    assert recipe.why == of_timm.why


def test_settings_of_a_recipe_file_fit_its_model_args(tmp_path: Path) -> None:
    text = "timm: vit_tiny_patch16_224\nmodel_args: {img_size: 32, patch_size: 4, depth: 6}\n"
    recipe = load_recipe(recipe_file(tmp_path, text))
    assert recipe.settings().described()["preset"] == "measured"
    assert any("of 64 patches" in reason for reason in recipe.why.values())
    assert load_recipe(recipe_file(tmp_path, text + "gtp: {preset: paper}\n")).settings() == GTPConfig()


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ("mean: [123.675, 116.28, 103.53]", "divide by 255: \\[0.485, 0.456, 0.406]"),
        ("std: [58.395, 57.12, 57.375]", "divide by 255: \\[0.229, 0.224, 0.225]"),
        ("std: [0.2, 0.0, 0.2]", "above 0"),
        ("mean: [-2.1, -2.0, -1.8]", "0 to 1"),
        ("mean: 0.5", "one number per channel"),
        ("crop_pct: 87.5", "divide by 100: 0.875"),
        ("crop_pct: 0", "0.9 for 90 %"),
        ("crop_mode: centre", "center, squash, border"),
        ("interpolation: cubic", "bicubic"),
        ("input_size: 224", "3, 224, 224"),
        ("cropp_pct: 0.9", "did you mean crop_pct"),
        ("resize: 256", "it may have mean, std"),
    ],
)
def test_preprocessing_outside_of_what_makes_sense(tmp_path: Path, entry: str, hint: str) -> None:
    name = entry.partition(":")[0]
    with pytest.raises(ConfigError, match=rf"preprocessing.* ?'?{name}.*{hint}"):
        load_recipe(recipe_file(tmp_path, f"timm: vit_tiny_patch16_224\npreprocessing: {{{entry}}}"))


def test_preprocessing_of_a_recipe_in_python_is_checked() -> None:
    with pytest.raises(ConfigError, match="divide by 255"):
        replace(load_recipe("deit_s"), preprocessing={"mean": (123.675, 116.28, 103.53)})


def test_timms_notes_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("digits")
    config = replace(timm.get_pretrained_cfg(recipe.timm), notes=("use the quickgelu variant",))
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: config)
    assert any("use the quickgelu variant" in note for note in build_model(recipe).notes)
    assert not build_model(recipe, "random").notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timm: [a", "is not YAML"),
        ("", "is not a recipe: it needs timm: NAME"),
        ("- timm", "is not a recipe"),
        ("title: no model", "is not a recipe"),
        ("timm:", "is not a recipe"),
        ("timm: deit_tiny_patch16_224\nnum_prop: 3", "is not a recipe.*timm: NAME.*, gtp, "),
    ],
)
def test_what_is_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe_file(tmp_path, text))


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\x80\xff\x00")
    with pytest.raises(ConfigError, match=r"is not YAML"):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_unknown_timm_name_in_a_recipe_file(tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file(tmp_path, "timm: deit_tiny_patch16_22\ngtp: {num_prop: 4}"))
    with pytest.raises(UnknownModelError, match=r"deit_tiny_patch16_224"):
        build_model(recipe, "random")


def test_unknown_setting_in_a_recipe_file(tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file(tmp_path, "timm: deit_tiny_patch16_224\ngtp: {num_props: 3}"))
    with pytest.raises(ConfigError, match=r"recipe mine: .*num_props"):
        recipe.settings()


def test_an_amount_replaces_the_recipes_own(tmp_path: Path) -> None:
    for text in ("{num_prop: 4, schedule: late}", "{keep: 0.8, schedule: late}", "{macs: 2.0e+8, schedule: late}"):
        recipe = load_recipe(recipe_file(tmp_path, f"timm: vit_tiny_patch16_224\ngtp: {text}"))
        for amount in ({"num_prop": 3}, {"keep": 0.7}, {"macs": 3e8}):
            assert recipe.settings(**amount) == GTPConfig(**amount, schedule="late")
            assert recipe.settings("drop", **amount) == make_settings("drop", **amount, schedule="late")
        with pytest.raises(ConfigError, match="num_prop and keep"):
            recipe.settings(num_prop=3, keep=0.7)


@pytest.mark.parametrize("name", METHODS.names())
def test_a_recipe_gives_settings_of_any_method(name: str) -> None:
    settings = load_recipe("deit_s").settings(name)
    assert (settings.name, settings.num_prop) == (name, 0 if name == "dense" else 8)
    with pytest.raises(ConfigError, match="choose one of"):
        load_recipe("deit_s").settings("evit")


@pytest.mark.parametrize("model", ["deit_s", "timm:deit_small_patch16_224", "file"])
def test_an_image_size_is_given_once(tmp_path: Path, model: str) -> None:
    """The recipe keeps it: all that is made from the recipe has that size."""
    name = recipe_file(tmp_path, "timm: deit_small_patch16_224") if model == "file" else model
    recipe = load_recipe(name, (32, 48))
    assert outline(recipe).patch_embed.img_size == (32, 48)
    assert build_model(recipe, "random").model.patch_embed.img_size == (32, 48)
    assert recipe == load_recipe(name, (32, 48)) == recipe.sized((32, 48)) == recipe.sized(None)
    if model not in ("timm:deit_small_patch16_224", "file"):  # whose settings depend on the size
        assert recipe == load_recipe(name).sized((32, 48))
    assert outline(recipe.sized((64, 64))).patch_embed.img_size == (64, 64)


def calibrated_recipe() -> Recipe:
    gtp = {"num_prop": [2, 0], "sparsity": 0.7, "threshold": "calibrated", "calibration": [[0.1], []]}
    return Recipe(name="mine", title="mine", timm="vit_tiny_patch16_224", gtp=gtp)


@pytest.mark.parametrize(
    "given", [{"sparsity": 0.4}, {"num_prop": (1, 1)}, {"keep": 0.8}, {"selection": "CosSimMax"}, {"schedule": "late"}]
)
def test_an_override_drops_the_calibration(given: dict[str, object]) -> None:
    settings = calibrated_recipe().settings(**given)
    assert isinstance(settings, GTPConfig)
    assert settings.calibration is None
    assert settings.needs_calibration


@pytest.mark.parametrize("given", [{}, {"sparsity": 0.7}, {"num_prop": (2, 0)}, {"threshold": "calibrated"}])
def test_the_calibration_stays_where_nothing_changes(given: dict[str, object]) -> None:
    settings = calibrated_recipe().settings(**given)
    assert isinstance(settings, GTPConfig)
    assert settings.calibration == ((0.1,), ())


def test_a_calibration_may_be_given_with_an_override() -> None:
    settings = calibrated_recipe().settings(sparsity=0.4, calibration=((0.2,), ()))
    assert isinstance(settings, GTPConfig)
    assert settings.calibration == ((0.2,), ())


@pytest.mark.parametrize("name", ["deit_s", "timm:vit_base_patch32_plus_256"])
def test_every_preset_spends_the_recipes_macs_in_its_own_layers(name: str) -> None:
    recipe = load_recipe(name)
    model = outline(recipe)
    own, measured, paper = (make_plan(model, recipe.settings(preset=preset)) for preset in (None, "measured", "paper"))
    assert own == measured
    assert [sum(amount > 0 for amount in plan.num_prop) for plan in (measured, paper)] == [6, 12]
    assert measured.ratio == pytest.approx(paper.ratio, abs=0.011)


@pytest.mark.parametrize("given", [{"alpha": 0.2}, {"num_neighbours": 4}, {"graph": "Mixed"}])
def test_settings_of_the_paper_point_at_its_preset(given: dict[str, Any]) -> None:
    recipe = load_recipe("deit_s")
    with pytest.raises(ConfigError, match="measured: --preset paper"):
        recipe.settings(**given)
    assert recipe.settings(preset="paper", **given)


def test_a_preset_takes_the_layers_that_are_given() -> None:
    layers = (2,) * 12
    settings = load_recipe("deit_s").settings(preset="measured", num_prop=layers)
    assert (settings.num_prop, settings.schedule) == (layers, None)


def test_the_preset_of_a_recipe_keeps_its_calibration() -> None:
    own = calibrated_recipe()
    own = replace(own, gtp=own.gtp | {"preset": "paper", "num_prop": 2, "graph": "Spatial"})
    settings = own.settings()
    assert isinstance(settings, GTPConfig)
    assert (settings.calibration, settings.graph) == (((0.1,), ()), "Spatial"), "the recipe overrides its preset"


def test_weights_come_in_by_their_own_door(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("timm: vit_tiny_patch16_224\nmodel_args: {checkpoint_path: x.pth}\n", "utf-8")
    with pytest.raises(ConfigError, match=r"checkpoint_path"):
        load_recipe(str(tmp_path / "r.yaml"))
