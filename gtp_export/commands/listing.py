"""``gtp-export models`` and ``methods``: list the recipes, the token reduction methods and GTP's axes."""

from typing import Any

from gtp_export import console
from gtp_export.options import Json


def models(json: Json = False) -> None:
    """List the recipes: models with default settings. Any other supported timm model is exported as timm:NAME."""
    from gtp_models.recipes import Recipe, load_recipe, recipe_names

    recipes = [load_recipe(name) for name in recipe_names()]
    if json:
        console.emit({"models": [_recipe_document(recipe) for recipe in recipes]})
        return

    def row(recipe: Recipe) -> tuple[str, ...]:
        top1 = recipe.reference.get("dense_top1")
        return (recipe.name, recipe.title, str(recipe.gtp.get("num_prop", "")), f"{top1:.1f}" if top1 else "")

    console.table("", ("model", "description", "num_prop", "dense top-1"), [row(entry) for entry in recipes])
    console.out.print("dense top-1: published figures on ImageNet-1k; --json shows their sources and the timm names")
    console.out.print("next: gtp-export export MODEL")


def _recipe_document(recipe: Any) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "title": recipe.title,
        "timm": recipe.timm,
        "settings": recipe.settings().described(),
        "reference": recipe.reference,
    }


def methods(json: Json = False) -> None:
    """List the token reduction methods, and GTP's selections, graphs and propagations."""
    from gtp_models import METHODS
    from gtp_models.methods.gtp.graphs import GRAPHS
    from gtp_models.methods.gtp.propagations import PROPAGATIONS
    from gtp_models.methods.gtp.selections import SELECTIONS

    listing: dict[str, dict[str, str]] = {
        "method": _summaries(METHODS),
        "selection": _summaries(SELECTIONS),
        "graph": _summaries(GRAPHS),
        "propagation": _summaries(PROPAGATIONS),
    }
    if json:
        console.emit(listing)
        return
    for option, entries in listing.items():
        console.table("", (f"--{option}", "description"), list(entries.items()))
    console.out.print("next: gtp-export export MODEL --method METHOD")


def _summaries(registry: Any) -> dict[str, str]:
    return {name: registry[name].summary for name in registry.names()}
