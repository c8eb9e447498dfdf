"""Recipe files."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

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


TAGS = ["!!binary ", "!!timestamp ", "!!set ", "!!omap ", "!!pairs ", "!!float ", "!!int ", "!!python/name:os.system "]
FORMS = [
    "*a",
    "&a ",
    "<<: ",
    "? ",
    "- ",
    "|2\n ",
    ">-\n ",
    "%YAML 1.2\n---\n",
    "--- ",
    "... ",
    "# ",
    "''",
    '"\\x1b"',
    "~",
]
PLAIN = [
    ".nan",
    "-.inf",
    "0o17",
    "0x" + "f" * 4000,
    "1:60:60",
    "2001-99-99",
    "1" * 5000,
    "yes",
    "=",
    "{}",
    "[]",
    "a: b",
]
PIECES = st.sampled_from([*TAGS, *FORMS, *PLAIN, "[" * 20, "{a: " * 20, "[" * 5000, "\t", "\x85", "\u2028"])


@st.composite
def texts(draw: Any) -> bytes:
    """YAML that JSON does not have: anchors, tags, merges, blocks, numbers of other forms, several documents."""
    lines = ["timm: vit_tiny_patch16_224"]
    names = ["timm", "title", "labels", "gtp", "model_args", "reference", "name", "weights", "preprocessing", "x"]
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from([*(f"{name}: " for name in names), ""]))
        lines.append(name + "".join(draw(st.lists(PIECES, max_size=3))))
        if draw(st.booleans()):
            lines.append("  - " + "".join(draw(st.lists(PIECES, max_size=3))))
    return "\n".join(draw(st.permutations(lines))).encode("utf-8", "surrogatepass")


TARGET = Target(read_recipe, recipe_seeds, WORDS, st.one_of(edits(recipe_seed), texts()))
