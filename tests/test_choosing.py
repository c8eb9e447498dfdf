"""Settings chosen for ``timm:NAME``: sensible, said, and the same for every command."""

import json
from pathlib import Path

import pytest
import yaml
from artifacts import DIGITS, Command
from helpers import tiny_vit

from gtp_models import Recipe, load_recipe, make_plan
from gtp_models.choosing import SAVED, choose
from gtp_models.class_names import names_of
from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.heads import without_head
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.weights import build_model, outline
from gtp_runtime import read_manifest

pytestmark = pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")


@pytest.mark.parametrize(
    "name",
    [
        "deit_small_patch16_224",
        "deit_base_distilled_patch16_224",
        "vit_large_patch16_224",
        "vit_base_patch32_224",
        "vit_base_patch16_siglip_gap_512",
        "vit_small_patch14_reg4_dinov2",
    ],
)
@pytest.mark.parametrize("preset", [None, "paper"])
def test_the_macs_are_those_of_the_papers_deit_s(name: str, preset: str | None) -> None:
    recipe = load_recipe(f"timm:{name}")
    settings = recipe.settings(preset=preset)
    assert isinstance(settings, GTPConfig)
    assert settings.described()["preset"] == (preset or "measured")
    assert abs(1 - make_plan(outline(recipe), settings).ratio - SAVED) <= 0.02


@pytest.mark.parametrize(("size", "num_neighbours"), [(64, 8), (32, 4), (16, 1)])
@pytest.mark.parametrize("depth", [2, 12])
def test_few_tokens(size: int, num_neighbours: int, depth: int) -> None:
    model = tiny_vit(img_size=size, depth=depth)
    config = Recipe("tiny", "tiny", "tiny", gtp=choose(model)[0]).settings()
    assert isinstance(config, GTPConfig)
    assert config.num_neighbours == num_neighbours
    assert abs(1 - make_plan(model, config).ratio - SAVED) <= (0.03 if size >= 32 else 0.3)


def test_one_patch() -> None:
    with pytest.raises(ConfigError):
        choose(tiny_vit(img_size=8))


def test_the_image_size_counts() -> None:
    assert load_recipe("timm:deit_small_patch16_224", (448, 448)).why["keep"].startswith("465 of 784 patches")
    with pytest.raises(ConfigError, match="100x100 .*divide"):
        load_recipe("timm:deit_small_patch16_224", (100, 100))


def test_labels_are_imagenets_only_where_there_are_1000_classes() -> None:
    names = ["vit_tiny_patch16_224", "vit_tiny_patch16_224.augreg_in21k", "vit_base_patch16_clip_224.openai"]
    named = []
    for name in names:
        built = build_model(load_recipe(f"timm:{name}"), "random")
        (labels, ids), note = names_of(built, 0 if "clip" in name else built.model.num_classes)
        named.append((labels and labels[0], ids and ids[0], note))
    assert named == [("tench, Tinca tinca", "n01440764", ""), (None, None, ""), (None, None, "")]


def test_a_grid_that_moves_is_fixed() -> None:
    assert not outline(load_recipe("timm:test_vit")).dynamic_img_size


def test_what_was_overridden_is_not_said_to_be_chosen() -> None:
    recipe = load_recipe("timm:test_vit")
    (line,) = recipe.choices(recipe.settings())
    assert line.startswith(
        "test_vit has no recipe, so these settings were chosen: keep 0.743 (77 of 100 patches are removed in layers"
    )
    assert "num_neighbours" not in line, "the preset does not use it"
    (line,) = recipe.choices(recipe.settings(preset="paper", num_prop=4))
    assert "keep" not in line and "num_neighbours 8 (the default)" in line
    assert recipe.choices(recipe.settings(num_prop=4)) == []
    assert recipe.choices(recipe.settings(num_prop=0)) == []
    assert load_recipe("deit_s").choices(load_recipe("deit_s").settings()) == []
    assert without_head(recipe).why == recipe.why


def test_export_says_what_it_chose(command: Command, tmp_path: Path) -> None:
    leanest = ("--no-dense", "--no-simplify", "--no-check", "--img-size", "64", "--output", "features")
    ran = command("export", "timm:test_vit", "--weights", "random", *leanest, "-q", "--json", "-o", tmp_path / "out")
    note, *others = json.loads(ran.out)["notes"]
    assert "keep 0.743 (12 of 16 patches are removed in layers 1, 2, 3, 4, 5, which saves 25.1% of the MACs" in note
    assert ran.err.splitlines()[0] == f"note: {note}"
    assert "--calib-data" in ran.err, "what fitting would bring"
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.notes, manifest.num_prop) == ([note, *others], [0, 2, 3, 2, 2, 3])


def test_calibrate_chooses_the_same(command: Command, tmp_path: Path) -> None:
    images = DIGITS / "calibration" / "3"
    ran = command(
        "calibrate",
        "timm:test_vit",
        "--sparsity",
        "0.7",
        "--weights",
        "random",
        "-o",
        "out.yaml",
        "--data",
        images,
        "-q",
    )
    assert ran.code == 0
    assert "note: test_vit" in ran.err
    written = yaml.safe_load(Path("out.yaml").read_text("utf-8"))
    assert written["gtp"]["keep"] == 0.743
    assert "why" not in written
    assert load_recipe("out.yaml").settings().keep == 0.743


def test_what_cannot_be_patched_is_refused_before_weights_are_fetched(command: Command) -> None:
    with pytest.raises(UnsupportedModelError, match="ResNet"):
        load_recipe("timm:test_resnet")
    ran = command("export", "timm:test_resnet", "-q")
    assert (ran.code, ran.out) == (2, "")
    assert "error: ResNet" in ran.err
