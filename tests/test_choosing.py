"""Settings chosen for ``timm:NAME``: sensible, said, and the same for every command."""

import json
from pathlib import Path

import pytest
import yaml
from artifacts import DIGITS, Command
from helpers import tiny_vit

from gtp_models import load_recipe, make_plan
from gtp_models.choosing import SAVED, choose
from gtp_models.errors import ConfigError, UnsupportedModelError
from gtp_models.heads import without_head
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.weights import outline
from gtp_runtime import read_manifest

pytestmark = pytest.mark.filterwarnings("ignore::gtp_runtime.errors.RandomWeightsWarning")


@pytest.mark.parametrize(
    ("name", "num_prop"),
    [
        ("deit_small_patch16_224", 8),
        ("deit_base_distilled_patch16_224", 8),
        ("vit_large_patch16_224", 4),
        ("vit_base_patch32_224", 2),
        ("vit_base_patch16_siglip_gap_512", 39),
        ("vit_small_patch14_reg4_dinov2", 48),
    ],
)
def test_one_number_for_all_layers_saves_what_the_papers_deit_s_saves(name: str, num_prop: int) -> None:
    recipe = load_recipe(f"timm:{name}")
    assert recipe.settings() == GTPConfig(num_prop=num_prop)
    assert abs(1 - make_plan(outline(recipe), recipe.settings()).ratio - SAVED) <= 0.02


@pytest.mark.parametrize(("size", "num_neighbours"), [(64, 8), (32, 4), (16, 1)])
@pytest.mark.parametrize("depth", [2, 12])
def test_few_tokens(size: int, num_neighbours: int, depth: int) -> None:
    model = tiny_vit(img_size=size, depth=depth)
    config = GTPConfig(**choose(model)[0])
    assert config.num_neighbours == num_neighbours
    assert abs(1 - make_plan(model, config).ratio - SAVED) <= (0.03 if size >= 32 else 0.3)


def test_one_patch() -> None:
    with pytest.raises(ConfigError, match="a single patch, so no token can be removed: choose a larger image size"):
        choose(tiny_vit(img_size=8))


def test_the_image_size_counts() -> None:
    assert load_recipe("timm:deit_small_patch16_224", (448, 448)).settings().num_prop == 29
    with pytest.raises(ConfigError, match="100x100 pixels do not divide"):
        load_recipe("timm:deit_small_patch16_224", (100, 100))


def test_labels_are_imagenets_only_where_there_are_1000_classes() -> None:
    names = ["vit_tiny_patch16_224", "vit_tiny_patch16_224.augreg_in21k", "vit_base_patch16_clip_224.openai"]
    assert [load_recipe(f"timm:{name}").labels for name in names] == ["imagenet-1k", None, None]


def test_a_grid_that_moves_is_fixed() -> None:
    assert not outline(load_recipe("timm:test_vit")).dynamic_img_size


def test_what_was_overridden_is_not_said_to_be_chosen() -> None:
    recipe = load_recipe("timm:test_vit")
    (line,) = recipe.choices(recipe.settings())
    assert line.startswith(
        "test_vit has no recipe, so these settings were chosen: num_prop 9 (54 of 100 patches are removed"
    )
    (line,) = recipe.choices(recipe.settings(num_prop=4))
    assert "num_prop" not in line and "selection MixedAttnMax (needs no class token)" in line
    (line,) = recipe.choices(recipe.settings(propagation="None"))
    assert "num_neighbours" not in line
    assert recipe.choices(recipe.settings(num_prop=0)) == []
    assert load_recipe("deit_s").choices(load_recipe("deit_s").settings()) == []
    assert without_head(recipe).why == recipe.why


def test_export_says_what_it_chose(command: Command, tmp_path: Path) -> None:
    leanest = ("--no-dense", "--no-simplify", "--no-check", "--img-size", "64", "--head", "none")
    ran = command("export", "timm:test_vit", "--weights", "random", *leanest, "-q", "--json", "-o", tmp_path / "out")
    (note,) = json.loads(ran.out)["notes"]
    assert "num_prop 2,1,2,2,1,2 (10 of 16 patches are removed" in note
    assert "num_neighbours 4 (a quarter of the patches)" in note
    assert ran.err.splitlines() == [f"note: {note}"]
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.notes, manifest.num_prop) == ([note], [2, 1, 2, 2, 1, 2])


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
    assert "note: test_vit has no recipe" in ran.err
    written = yaml.safe_load(Path("out.yaml").read_text("utf-8"))
    assert written["gtp"]["num_prop"] == 9
    assert "why" not in written
    assert load_recipe("out.yaml").settings().num_prop == 9


def test_what_cannot_be_patched_is_refused_before_weights_are_fetched(command: Command) -> None:
    with pytest.raises(UnsupportedModelError, match="ResNet"):
        load_recipe("timm:test_resnet")
    ran = command("export", "timm:test_resnet", "-q")
    assert (ran.code, ran.out) == (2, "")
    assert "error: ResNet cannot be patched" in ran.err
