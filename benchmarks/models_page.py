"""Writes models.md from models.json in benchmarks/results/: families, recipes, and why others are unsupported.

python benchmarks/models_page.py
"""

import argparse
import json
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "results" / "models.json"
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
always kept. *Removed* is how many patches an export removes by default (`--preset measured`: in two layers), and
*MACs saved* is the resulting saving.

| recipe | timm name | pixels | patches | prefix | layers | dense GMACs | removed | MACs saved | output |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |
"""
UNSUPPORTED = """
## Unsupported

| names | for example | reason |
| ---: | --- | --- |
"""


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
    argparse.ArgumentParser(description=__doc__).parse_args()
    write(DATA)


if __name__ == "__main__":
    main()
