"""Judges every vit, deit and eva name that timm lists, on the meta device, and writes docs/models.md.

    python benchmarks/models.py

No weights are made or fetched. A name is supported, or unsupported with the reason; anything else is a fault.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from gtp_models import GTPConfig, Recipe, UnsupportedModelError, make_plan
from gtp_models.choosing import choose
from gtp_models.frame.patch import check_supported
from gtp_models.heads import projects
from gtp_models.weights import outline

DOCUMENT = Path(__file__).parents[1] / "docs" / "models.md"
PATTERNS = ["*vit*", "*deit*", "*eva*", "*beit*"]
MODULES = ["vision_transformer", "vision_transformer_hybrid", "deit", "eva"]  # other names for the same: AIMv2, ViTamin
FAMILIES = {  # the first that fits
    "For tests": ["test_*"],
    "DeiT": ["deit_*"],
    "DeiT-III": ["deit3_*"],
    "BEiT-3": ["beit3_*"],
    "DINOv3": ["*dinov3*"],
    "DINOv2": ["*dinov2*"],
    "SigLIP": ["*siglip*"],
    "EVA and EVA-02": ["eva*"],
    "Perception Encoder": ["*_pe_*"],
    "CLIP": ["*clip*"],
    "RADIO and TIPS": ["*radio*", "*tips*"],
    "AIMv2": ["aimv2*"],
    "With rotary embeddings": ["*rope*"],
    "FlexiViT": ["flexivit*"],
    "ViT": ["*"],
}
INTRO = """# Which of timm's models GTP fits

Every name of timm {version} that matches {patterns} or stands in the same modules, made on
the meta device and judged by what `apply` itself checks: {good} supported, {bad} not. `python benchmarks/models.py`
writes this page.
`gtp-export export timm:NAME` takes any supported one; `num_prop` is what it chooses where nothing is said, with that
choice's share of the MACs saved. Prefix tokens (class, distillation, registers) never leave. Pretrained tags (`.in21k`,
`.openai`) may have other outputs.
"""
COLUMNS = ("name", "pixels", "patches", "prefix", "layers", "dense GMACs", "num_prop", "MACs saved", "output")


@dataclass(frozen=True)
class Verdict:
    """What is known of a name: why it is unsupported, or its row of the table."""

    name: str
    reason: str = ""
    row: tuple[str, ...] = ()


def names() -> list[str]:
    import timm  # after gtp_models, which lets it import beside any torchvision

    wanted = {*timm.list_models(PATTERNS), *timm.list_models(module=MODULES)}
    return [name for name in timm.list_models() if name in wanted]


def judge(name: str) -> Verdict:
    model = outline(Recipe(name, name, name))
    try:
        check_supported(model)
    except UnsupportedModelError as error:
        return Verdict(name, reason=str(error))
    settings = choose(model)[0]
    plan, patches = make_plan(model, GTPConfig(**settings)), model.patch_embed
    output = "features" if projects(model, name) or not model.num_classes else f"{model.num_classes} classes"
    saved = f"{1 - plan.ratio:.1%}"
    amount = settings["num_prop"]
    words = str(amount) if isinstance(amount, int) else f"{min(amount)} to {max(amount)}"
    sizes = ("x".join(map(str, patches.img_size)), patches.num_patches, model.num_prefix_tokens, len(model.blocks))
    row = (name, *map(str, sizes), f"{plan.dense / 1e9:.2f}", words, saved, output)
    return Verdict(name, row=row)


def document(verdicts: Sequence[Verdict]) -> str:
    from timm import __version__

    good, bad = ([verdict for verdict in verdicts if bool(verdict.reason) is wanted] for wanted in (False, True))
    patterns = ", ".join(f"`{pattern}`" for pattern in PATTERNS)
    lines = [
        INTRO.format(version=__version__, patterns=patterns, good=len(good), bad=len(bad)),
        "## Supported",
        *(line for family, members in _families(good) for line in _table(family, members)),
        "",
        "## Unsupported",
        *(line for reason, members in _reasons(bad) for line in ("", f"{reason}:", f"{', '.join(members)}.")),
    ]
    return "\n".join(lines) + "\n"


def _families(verdicts: Iterable[Verdict]) -> list[tuple[str, list[Verdict]]]:
    found = defaultdict(list)
    for verdict in verdicts:
        found[next(name for name, patterns in FAMILIES.items() if _matches(verdict.name, patterns))].append(verdict)
    return [(name, found[name]) for name in FAMILIES if name in found]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _table(family: str, verdicts: Sequence[Verdict]) -> list[str]:
    head = [f"| {' | '.join(COLUMNS)} |", f"| --- |{' ---: |' * (len(COLUMNS) - 2)} --- |"]
    return ["", f"### {family} ({len(verdicts)})", "", *head, *(f"| {' | '.join(entry.row)} |" for entry in verdicts)]


def _reasons(verdicts: Iterable[Verdict]) -> list[tuple[str, list[str]]]:
    found = defaultdict(list)
    for verdict in verdicts:
        found[verdict.reason].append(verdict.name)
    return sorted(found.items())


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    DOCUMENT.write_text(document([judge(name) for name in names()]), "utf-8")


if __name__ == "__main__":
    main()
