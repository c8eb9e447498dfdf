"""Recipe files."""

from pathlib import Path
from typing import Any

from targets.base import ROOT, Target, edits, write

RECIPES = ROOT / "models" / "gtp_models" / "recipes"
WORDS = (
    b"&a",
    b"*a",
    b"!!python/name:os.system",
    b"!!binary",
    b"!!timestamp",
    b"[",
    b"{",
    b"? ",
    b"<<:",
    b"0x",
    b"1:60",
)


def read_recipe(content: bytes, folder: Path) -> None:
    from gtp_models.recipes import load_recipe

    load_recipe(str(write(folder, "recipe.yaml", content))).settings()


def recipe_seed() -> dict[str, Any]:
    import yaml

    values: dict[str, Any] = yaml.safe_load((RECIPES / "digits.yaml").read_bytes())
    return {**values, "reference": {"top1": 98.6, "source": "x"}}


def recipe_seeds() -> list[bytes]:
    return [(RECIPES / f"{name}.yaml").read_bytes() for name in ("clip_b16", "deit_b", "deit_s", "digits", "lvvit_m")]


TARGET = Target(read_recipe, recipe_seeds, WORDS, edits(recipe_seed))
