"""Token maps: which patches of an image stand in each layer, and into which of them the others went, as SVG paths."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gtp_exporters.report.samples import Sample

PHOTOGRAPH = 64 * 64  # pixels from which JPEG is smaller and good enough
QUALITY = 85


@dataclass(frozen=True)
class Panel:
    """One layer that reduces; paths are in pixels of the image.

    Attributes:
        layer: from 0.
        before, after: image tokens.
        gone: patches that left in earlier layers.
        leaving: patches that leave here.
        lines: from each of these to the one that it is merged into; "" where none is named.
        starts: dots where the lines begin.
    """

    layer: int
    before: int
    after: int
    gone: str
    leaving: str
    lines: str
    starts: str


@dataclass(frozen=True)
class TokenMap:
    """An image with its panels; ``image`` is a data URI, the patch is ``patch`` pixels a side (height, width)."""

    sample: Sample
    image: str
    width: int
    height: int
    patch: tuple[float, float]
    panels: list[Panel]


def make_map(sample: Sample, grid: list[int]) -> TokenMap:
    """Draw the tokens of an image on its patches, ``grid`` rows and columns."""
    height, width = sample.pixels.shape[:2]
    patch = height / grid[0], width / grid[1]
    panels, gone = [], np.empty(0, int)
    for layer, left in enumerate(sample.left):
        if not len(left):
            continue
        before = grid[0] * grid[1] - len(gone)
        pairs = [] if sample.receivers is None else _pairs(left, sample.receivers[layer], grid, patch)
        lines, starts = "".join(f"M{one}L{other}" for one, other in pairs), "".join(f"M{one}h0" for one, _ in pairs)
        squares = _squares(gone, grid, patch), _squares(left, grid, patch)
        panels.append(Panel(layer, before, before - len(left), *squares, lines, starts))
        gone = np.concatenate([gone, left])
    return TokenMap(sample, _data_uri(sample.pixels), width, height, patch, panels)


def _squares(ids: np.ndarray, grid: list[int], patch: tuple[float, float]) -> str:
    height, width = patch
    return "".join(
        f"M{column * width:g} {row * height:g}h{width:g}v{height:g}h-{width:g}z"
        for row, column in (divmod(int(index), grid[1]) for index in sorted(ids))
    )


def _pairs(
    left: np.ndarray, receivers: np.ndarray, grid: list[int], patch: tuple[float, float]
) -> list[tuple[str, str]]:
    """Return the middles of each token and of its receiver; a receiver that is no patch (the class token) has none."""
    count = grid[0] * grid[1]
    pairs = [(int(one), int(other)) for one, other in zip(left, receivers, strict=True) if 0 <= other < count]
    return [(_middle(one, grid, patch), _middle(other, grid, patch)) for one, other in pairs]


def _middle(index: int, grid: list[int], patch: tuple[float, float]) -> str:
    row, column = divmod(index, grid[1])
    return f"{(column + 0.5) * patch[1]:g} {(row + 0.5) * patch[0]:g}"


def _data_uri(pixels: np.ndarray) -> str:
    form, options = ("JPEG", {"quality": QUALITY}) if pixels.shape[0] * pixels.shape[1] >= PHOTOGRAPH else ("PNG", {})
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, optimize=True, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
