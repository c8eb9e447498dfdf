"""Command-line options for a method's settings, and how their text is parsed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gtp_models.methods.gtp.config import PRESETS, THRESHOLDS
from gtp_models.schedules import KINDS

PANEL = "Settings of the method (default: the recipe's; for timm:NAME chosen by number of tokens and layers)"
_LISTED = "gtp-export methods lists them"


def _option(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=PANEL, show_default=False)


Method = Annotated[str, typer.Option(help=f"gtp or a baseline ({_LISTED}).", rich_help_panel=PANEL)]
Preset = Annotated[
    str | None, _option(f"Form of GTP: {' or '.join(PRESETS)}; paper is as published. Default: the recipe's.")
]
NumProp = Annotated[str | None, _option("Tokens removed in every layer, or one number per layer: 4,8,…")]
Schedule = Annotated[str | None, _option(f"In which layers tokens are removed: {KINDS}; then +aligned[:M].")]
Macs = Annotated[str | None, _option("MACs of the backbone for one image, instead of --num-prop: 3.4G.")]
Keep = Annotated[float | None, _option("MACs as a share of the dense model's, instead of --num-prop: 0.74.")]
Sparsity = Annotated[float | None, _option("Share of the attention map to keep, in (0, 1].")]
Alpha = Annotated[float | None, _option("Factor by which a removed token is added to its neighbours.")]
NumNeighbours = Annotated[int | None, _option("Number of semantic neighbours of a token.")]
TokenScale = Annotated[bool | None, _option("Give tokens that received others more weight in attention.")]
Selection = Annotated[str | None, _option(f"The score by which tokens are kept: MixedAttnMax, … ({_LISTED}).")]
Propagation = Annotated[str | None, _option(f"What the kept tokens receive: GraphProp, … ({_LISTED}).")]
Graph = Annotated[str | None, _option(f"Which tokens are neighbours: Mixed, … ({_LISTED}).")]
Threshold = Annotated[str | None, _option(f"How the threshold of --sparsity is found: {' or '.join(THRESHOLDS)}.")]
CalibData = Annotated[Path | None, _option("A folder of images to calibrate on (default: the recipe's images).")]


def read_num_prop(text: str | None) -> "int | tuple[int, ...] | None":
    """Read "8" or "4,8"."""
    return None if text is None else _whole_numbers(text, ",", "--num-prop")


def read_size(text: str | None) -> "tuple[int, int] | None":
    """Read "224" or "HEIGHTxWIDTH"."""
    size = None if text is None else _whole_numbers(text, "x", "--img-size")
    if size is None or isinstance(size, int):
        return None if size is None else (size, size)
    if len(size) != 2:
        raise typer.BadParameter(f"--img-size takes one number or HEIGHTxWIDTH, not {text!r}")
    return size[0], size[1]


def read_macs(text: str | None) -> float | None:
    """Read "3.4G", "850M" or a plain number."""
    if text is None:
        return None
    units = {"M": 1e6, "G": 1e9}
    try:
        return float(text.rstrip("MG")) * units.get(text[-1:], 1)
    except ValueError:
        raise typer.BadParameter(f"--macs takes a number like 3.4G or 850M, not {text!r}") from None


def _whole_numbers(text: str, separator: str, option: str) -> "int | tuple[int, ...]":
    try:
        numbers = tuple(int(part) for part in text.split(separator))
    except ValueError:
        raise typer.BadParameter(f"{option} takes whole numbers like 8 or 4{separator}8, not {text!r}") from None
    return numbers if separator in text else numbers[0]
