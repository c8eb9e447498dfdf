"""``gtp-export models``: list the recipes."""

from typing import Any

from gtp_export import console
from gtp_export.options import Json


def models(json: Json = False) -> None:
    """List the recipes: models with default settings. Any other supported timm model is exported as timm:NAME."""
    from gtp_models.recipes import Recipe, load_recipe, recipe_names

    recipes = [load_recipe(name) for name in recipe_names()]
    if json:
        console.emit({"models": [_document(recipe) for recipe in recipes]})
        return

    def row(recipe: Recipe) -> tuple[str, ...]:
        top1 = recipe.reference.get("dense_top1")
        return (recipe.name, recipe.title, str(recipe.gtp.get("num_prop", "")), f"{top1:.1f}" if top1 else "")

    console.table("", ("model", "description", "num_prop", "dense top-1"), [row(entry) for entry in recipes])
    console.out.print("dense top-1: published figures on ImageNet-1k; --json shows their sources and the timm names")
    console.out.print("next: gtp-export export MODEL")


def _document(recipe: Any) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "title": recipe.title,
        "timm": recipe.timm,
        "settings": recipe.settings().described(),
        "reference": recipe.reference,
    }
