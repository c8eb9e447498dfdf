"""Draws which patches of an image are merged into which, layer by layer: the picture of README.md.

python benchmarks/picture.py [--image FILE] [--keep 0.7] [--output docs/merging.png]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import gtp_export
from gtp_models import Step, build_model, load_recipe
from gtp_runtime.images.decoding import open_image

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "models/gtp_models/digits/images/3/087.png"
INK, LINE, ARROW = "#7d8590", "#8b949e", "#f0883e"  # readable on white and on black
PATCH = 4  # pixels a side, as recipes/digits.yaml has it
Pixels = NDArray[np.uint8]
Line = tuple[tuple[int, int], tuple[int, int]]


def trace(pixels: Pixels, keep: float) -> list[Step]:
    """Return what each layer does with the tokens of (H, W, 3) pixels under the measured preset."""
    model = build_model(load_recipe("digits")).model.eval()
    gtp_export.apply(model, gtp_export.GTPConfig.measured(keep=keep))
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode(), gtp_export.trace_tokens(model) as steps:
        model(images)
    return list(steps)


def owners(steps: Sequence[Step], patches: int) -> list[int]:
    """Return for each patch the id of the token that holds it after these layers."""
    owner = list(range(patches))
    for step in steps:
        if step.received_by is not None:
            moved = dict(zip(step.propagated[0].tolist(), step.received_by[0].tolist(), strict=True))
            owner = [moved.get(token, token) for token in owner]
    return owner


def center(patch: int, columns: int) -> tuple[float, float]:
    """Return (x, y) of a patch's middle in pixels."""
    row, column = divmod(patch, columns)
    return (column + 0.5) * PATCH, (row + 0.5) * PATCH


def mean_of_tokens(pixels: Pixels, owner: Sequence[int]) -> Pixels:
    """Return pixels in which patches that share a token have their mean."""
    columns, shown = pixels.shape[1] // PATCH, pixels.copy()
    for token in set(owner):
        places = [divmod(patch, columns) for patch, held_by in enumerate(owner) if held_by == token]
        parts = [
            np.s_[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] for row, column in places
        ]
        mean = np.mean([pixels[part] for part in parts], axis=0)
        for part in parts:
            shown[part] = mean
    return shown


def borders(owner: Sequence[int], columns: int) -> list[Line]:
    """Return lines between neighbouring patches of different tokens, and around the image, in pixels."""
    held = np.pad(np.reshape(owner, (-1, columns)), 1, constant_values=-1)
    across = np.argwhere(held[1:, 1:-1] != held[:-1, 1:-1]) * PATCH
    down = np.argwhere(held[1:-1, 1:] != held[1:-1, :-1]) * PATCH
    lines = [((x, y), (x + PATCH, y)) for y, x in across.tolist()]
    return lines + [((x, y), (x, y + PATCH)) for y, x in down.tolist()]


def panel(axes: Any, pixels: Pixels, title: str, owner: Sequence[int]) -> None:
    """Draw the tokens of one moment."""
    from matplotlib.collections import LineCollection

    height, width = pixels.shape[:2]
    axes.imshow(mean_of_tokens(pixels, owner), extent=(0, width, height, 0), interpolation="nearest")
    axes.add_collection(LineCollection(borders(owner, width // PATCH), colors=LINE, linewidths=0.8, clip_on=False))
    axes.set_title(title, color=INK, fontsize=10)
    axes.set_axis_off()


def arrows(axes: Any, step: Step, columns: int) -> None:
    """Draw an arrow from every token that is removed to the one that it is merged into."""
    assert step.received_by is not None
    starts, ends = (
        [center(patch, columns) for patch in ids[0].tolist()] for ids in (step.propagated, step.received_by)
    )
    axes.scatter(*zip(*starts, strict=True), color=ARROW, s=16)
    (x, y), (to_x, to_y) = np.transpose(starts), np.transpose(ends)
    look = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.008, "headwidth": 4.5, "headlength": 5}
    axes.quiver(x, y, to_x - x, to_y - y, color=ARROW, **look)


def draw(pixels: Pixels, steps: Sequence[Step], output: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = pixels.shape[1] // PATCH
    patches = columns * pixels.shape[0] // PATCH
    reducing = [index for index, step in enumerate(steps) if step.received_by is not None]
    figure, panels = pyplot.subplots(1, len(reducing) + 1, figsize=(2.9 * (len(reducing) + 1), 3.2))
    for axes, index in zip(panels, reducing, strict=False):
        before = owners(steps[:index], patches)
        left = steps[index].propagated.shape[1]
        panel(axes, pixels, f"layer {index}: {left} of {len(set(before))} tokens merged", before)
        arrows(axes, steps[index], columns)
    after = owners(steps, patches)
    panel(panels[-1], pixels, f"after: {len(set(after))} tokens", after)
    figure.tight_layout()
    figure.savefig(output, transparent=True, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, default=IMAGE, help="32 x 32 pixels; default: a digit that is shipped")
    parser.add_argument("--keep", type=float, default=0.7, help="MACs to keep; default: %(default)s")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/merging.png")
    given = parser.parse_args(arguments)
    pixels = np.array(open_image(given.image))
    draw(pixels, trace(pixels, given.keep), given.output)


if __name__ == "__main__":
    main()
