"""Dense outputs as small pictures: that of the dense model, the reduced one's, and where they differ."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gtp_runtime.manifest import Manifest

SIDE = 160  # pixels of a picture at most
CELLS = 4096  # that principal components are computed from
ENDS = (1, 99)  # percentiles of the dense output that are black and white
WHITE = 255


@dataclass(frozen=True)
class Pictures:
    """An output of an image, as data URIs; ``most`` is the largest difference of a cell, as a share of the dense
    output's mean length.
    """

    name: str
    dense: str
    reduced: str
    difference: str
    most: float


def pictures_of(
    outputs: Mapping[str, np.ndarray], dense: Mapping[str, np.ndarray], manifest: Manifest
) -> list[Pictures]:
    """Draw the outputs of one image that lie on a grid; others have no picture.

    Args:
        outputs, dense: (...) of an image by name, of both models.
        manifest: of the export.
    """
    drawn = []
    for name, values in outputs.items():
        pair = [_on_grid(one, manifest, name) for one in (dense.get(name), values)]
        if pair[0] is not None and pair[1] is not None:
            drawn.append(_draw(name, pair[0], pair[1]))
    return drawn


def _on_grid(values: np.ndarray | None, manifest: Manifest, name: str) -> np.ndarray | None:
    """Return (C, rows, columns) float64 of an output; None where it has no such form."""
    if values is None or name not in manifest.outputs:
        return None
    kind, (rows, columns) = manifest.outputs[name].kind, manifest.model.grid
    if kind == "patches":
        values = values.T.reshape(-1, rows, columns)
    elif values.ndim == 2:
        values = values[None]
    return values.astype(np.float64) if values.ndim == 3 and min(values.shape[1:]) > 1 else None


def _draw(name: str, dense: np.ndarray, reduced: np.ndarray) -> Pictures:
    axes, middle = _axes(dense)
    colours = [np.einsum("kc,chw->hwk", axes, values - middle) for values in (dense, reduced)]
    low, high = np.percentile(colours[0], ENDS, axis=(0, 1))
    scaled = [(values - low) / np.maximum(high - low, 1e-12) for values in colours]
    length = max(float(np.linalg.norm(dense, axis=0).mean()), 1e-30)
    apart = np.linalg.norm(reduced - dense, axis=0)[..., None] / length
    most = float(apart.max())
    dense_uri, reduced_uri, difference = map(_data_uri, (*scaled, apart / max(most, 1e-12)))
    return Pictures(name, dense_uri, reduced_uri, difference, most)


def _axes(dense: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (K, C) axes, the first three principal components or the one channel itself, and the mean (C, 1, 1)."""
    channels = len(dense)
    if channels == 1:
        return np.ones((1, 1)), np.zeros((1, 1, 1))
    cells = dense.reshape(channels, -1).T
    cells = cells[:: -(-len(cells) // CELLS)]
    middle = cells.mean(0)
    axes = np.linalg.svd(cells - middle, full_matrices=False)[2][:3]
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1))
    return axes * np.where(signs == 0, 1, signs), middle[:, None, None]


def _data_uri(values: np.ndarray) -> str:
    """Return (rows, columns, 1 to 3) numbers in 0..1 as PNG; two are red and green."""
    pixels = np.rint(WHITE * np.clip(values, 0, 1)).astype(np.uint8)
    if pixels.shape[2] == 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[..., :1])], 2)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
