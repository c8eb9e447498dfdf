"""Judges every vit, deit and eva name that timm lists, and writes models.json and models.md
to benchmarks/results/.

    python benchmarks/models.py
    python benchmarks/models.py --page    # the page alone, from the JSON

Models are made on the meta device: no weights are made or fetched. A name is supported, or unsupported with the reason;
any other error ends the script.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
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

SHOWN = 4  # names of a row
FAMILIES = {  # the first that fits
    "for tests": ["test_*"],
    "DeiT": ["deit_*"],
    "DeiT III": ["deit3_*"],
    "BEiT-3": ["beit3_*"],
    "DINOv3": ["*dinov3*"],
    "DINOv2": ["*dinov2*"],
    "SigLIP": ["*siglip*"],
    "EVA and EVA-02": ["eva*"],
    "Perception Encoder": ["*_pe_*"],
    "CLIP": ["*clip*"],
    "RADIO and TIPS": ["*radio*", "*tips*"],
    "AIMv2": ["aimv2*"],
    "with rotary embeddings": ["*rope*"],
    "FlexiViT": ["flexivit*"],
    "ViT": ["*"],
}
HEAD = """# Which timm models are supported?

{total} names of timm {timm} were checked: every vit, deit, eva and beit name, and the other names of the same modules.
{good} are supported and {bad} are not. `gtp-export export timm:NAME` takes any supported name; for any other it fails
with the reason. LV-ViT, which timm does not have, is supported as well (recipes `lvvit_s` and `lvvit_m`).

[models.json](models.json) lists every name, with image size, patches, prefix tokens, layers, MACs and the settings that
an export chooses, or with the reason why it is unsupported. `python benchmarks/models.py` writes both files.

## Supported families

| family | names | pixels | patches | layers | dense GMACs | for example |
| --- | ---: | --- | --- | --- | --- | --- |
"""
RECIPES = """
## Recipes

`gtp-export export RECIPE` exports these. *Prefix* is the number of class, distillation and register tokens, which are
always kept. *Removed* is how many patches an export removes by default (`--preset measured`), and
*MACs saved* is the resulting saving.

| recipe | timm name | pixels | patches | prefix | layers | dense GMACs | removed | MACs saved | output |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
"""
UNSUPPORTED = """
## Unsupported

| names | for example | reason |
| ---: | --- | --- |
"""


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


def page(document: dict[str, Any]) -> str:
    """Return the page for what benchmarks/results/models.json holds."""
    good, bad = document["supported"], document["unsupported"]
    head = HEAD.format(total=len(good) + len(bad), timm=document["timm"], good=len(good), bad=len(bad))
    recipes = (_recipe(entry) for entry in document["recipes"])
    return "".join([head, *_families(good), RECIPES, *recipes, UNSUPPORTED, *_reasons(bad)])


def _row(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |\n"


def _families(entries: Iterable[dict[str, Any]]) -> Iterable[str]:
    members_of: dict[str, list[dict[str, Any]]] = {family: [] for family in FAMILIES}
    for entry in entries:
        members_of[_family(entry["name"])].append(entry)
    for family, members in members_of.items():
        if members:
            pixels = _range(max(entry["pixels"]) for entry in members)
            counts = (_range(entry[name] for entry in members) for name in ("patches", "layers", "dense_gmacs"))
            yield _row(family, len(members), pixels, *counts, f"`{members[0]['name']}`")


def _family(name: str) -> str:
    return next(family for family, patterns in FAMILIES.items() if any(fnmatch(name, pattern) for pattern in patterns))


def _range(values: Iterable[Any]) -> str:
    every = sorted(values)
    return f"{every[0]:,}" if every[0] == every[-1] else f"{every[0]:,} to {every[-1]:,}"


def _recipe(entry: dict[str, Any]) -> str:
    pixels, saved = "x".join(map(str, entry["pixels"])), f"{entry['macs_saved']:.1%}"
    counts = (entry["patches"], entry["prefix"], entry["layers"], f"{entry['dense_gmacs']:.2f}")
    return _row(entry["name"], entry["timm"], pixels, *counts, entry["removed"], saved, entry["output"])


def _reasons(entries: Iterable[dict[str, Any]]) -> Iterable[str]:
    names: dict[str, list[str]] = {}
    for entry in entries:
        names.setdefault(entry["reason"], []).append(entry["name"])
    for reason, members in sorted(names.items()):
        shown = ", ".join(f"`{name}`" for name in members[:SHOWN])
        yield _row(len(members), shown + (", …" if len(members) > SHOWN else ""), reason)


def write(data: Path) -> None:
    """Write the page beside the JSON."""
    data.with_suffix(".md").write_text(page(json.loads(data.read_text("utf-8"))), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="the page alone, from the JSON")
    if not parser.parse_args().page:
        DATA.write_text(to_json(data(judge(name) for name in names())), "utf-8")
    write(DATA)


if __name__ == "__main__":
    main()
