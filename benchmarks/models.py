"""Judges every vit, deit and eva name that timm lists, and writes models.json and models.md
to benchmarks/results/.

    python benchmarks/models.py
    python benchmarks/models_page.py      # the page alone, from the JSON

Models are made on the meta device: no weights are made or fetched. A name is supported, or unsupported with the reason;
any other error ends the script.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gtp_models import Recipe, Settings, UnsupportedModelError, load_recipe, make_plan, recipe_names
from gtp_models.choosing import choose
from gtp_models.frame.patch import check_supported
from gtp_models.heads import projects
from gtp_models.weights import outline

DATA = Path(__file__).parent / "results" / "models.json"
PATTERNS = ["*vit*", "*deit*", "*eva*", "*beit*"]
MODULES = ["vision_transformer", "vision_transformer_hybrid", "deit", "eva"]  # other names for the same: AIMv2, ViTamin


@dataclass(frozen=True)
class Supported:
    """A model that GTP fits.

    Attributes:
        name: a recipe's, or timm's.
        timm: timm's name.
        pixels: (height, width).
        patches: image tokens.
        prefix: class, distillation and register tokens.
        layers: transformer layers.
        dense_gmacs: 10^9 MACs of the backbone for one image, without GTP.
        removed: patches that an export removes with its default settings, in all layers together.
        macs_saved: share of the dense MACs that these settings save.
        output: "N classes" or "features".
    """

    name: str
    timm: str
    pixels: tuple[int, ...]
    patches: int
    prefix: int
    layers: int
    dense_gmacs: float
    removed: int
    macs_saved: float
    output: str


@dataclass(frozen=True)
class Unsupported:
    """A name that GTP does not fit, and the reason."""

    name: str
    reason: str


Verdict = Supported | Unsupported


def names() -> list[str]:
    """Return the names to judge, in timm's order; without LV-ViT's, which gtp_models adds to timm's when it is used."""
    import timm  # after gtp_models, which lets it import beside any torchvision

    wanted = {*timm.list_models(PATTERNS), *timm.list_models(module=MODULES)}
    return [name for name in timm.list_models() if name in wanted and not name.startswith("lvvit")]


def judge(name: str) -> Verdict:
    """Check a name as ``apply`` does, and choose settings for it as ``gtp-export export timm:NAME`` does."""
    recipe = Recipe(name, name, name)
    model = outline(recipe)
    try:
        check_supported(model)
    except UnsupportedModelError as error:
        return Unsupported(name, str(error))
    return described(name, name, model, replace(recipe, gtp=choose(model)[0]).settings())


def judge_recipe(name: str) -> Supported:
    """Return what a recipe exports with its own settings."""
    recipe = load_recipe(name)
    return described(name, recipe.timm, outline(recipe), recipe.settings())


def described(name: str, timm: str, model: Any, settings: Settings) -> Supported:
    """Return what is known of a model with some settings."""
    plan, patches = make_plan(model, settings), model.patch_embed
    return Supported(
        name,
        timm,
        tuple(patches.img_size),
        patches.num_patches,
        model.num_prefix_tokens,
        len(model.blocks),
        round(plan.dense / 1e9, 2),
        sum(plan.num_prop),
        round(1 - plan.ratio, 3),
        "features" if projects(model, timm) or not model.num_classes else f"{model.num_classes} classes",
    )


def data(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Return what benchmarks/results/models.json holds."""
    from timm import __version__

    recipes = [asdict(judge_recipe(name)) for name in recipe_names()]
    document: dict[str, Any] = {"timm": __version__, "recipes": recipes, "supported": [], "unsupported": []}
    for verdict in verdicts:
        document["supported" if isinstance(verdict, Supported) else "unsupported"].append(asdict(verdict))
    return document


def to_json(found: dict[str, Any]) -> str:
    """Return JSON with one model a line."""
    parts = [f' "timm": {json.dumps(found["timm"])}']
    for section in ("recipes", "supported", "unsupported"):
        lines = ",\n".join(f"  {json.dumps(entry)}" for entry in found[section])
        parts.append(f' "{section}": [\n{lines}\n ]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    from models_page import write

    DATA.write_text(to_json(data(judge(name) for name in names())), "utf-8")
    write(DATA)


if __name__ == "__main__":
    main()
