"""Sample images of the page with what happens to their tokens in each layer, and the maps of it, as SVG paths."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from gtp_exporters.report.pictures import Pictures, pictures_of
from gtp_runtime import Manifest, Model
from gtp_runtime.accuracy import as_classes
from gtp_runtime.images.folders import spread
from gtp_runtime.prediction import check_answers
from gtp_runtime.reference import Reference

PHOTOGRAPH = 64 * 64  # pixels from which JPEG is smaller and good enough
QUALITY = 85
SHOWN = 4  # images on a page


@dataclass(frozen=True)
class Sample:
    """An image and its tokens; ids count from 0, the first patch.

    Attributes:
        name: where it comes from, in words.
        pixels: (H, W, 3) uint8, as the model sees them.
        left: for each layer the ids that leave, (P,).
        receivers: for each layer the ids into which they are merged, (P,); None for methods without a single receiver.
        facts: what is known of it, name and value: its class, the model's answer.
        pictures: its dense outputs.
    """

    name: str
    pixels: np.ndarray
    left: list[np.ndarray]
    receivers: list[np.ndarray] | None
    facts: dict[str, str]
    pictures: list[Pictures] = field(default_factory=list)


def samples_of_pack(pack: Reference, manifest: Manifest) -> list[Sample]:
    """Return some images of the parity pack, one a class as far as there are classes."""
    chosen = spread(_one_a_class(pack), SHOWN)
    return [_of_pack(pack, index, manifest) for index in chosen]


def samples_of_files(model: Model, paths: Sequence[str | PathLike[str]], dense: Model | None = None) -> list[Sample]:
    """Return images with their tokens as a loaded file says; without a trace output nothing is known of the tokens.

    Args:
        model: the file.
        paths: of the images.
        dense: the dense baseline, which dense outputs are shown beside.

    Raises:
        ImageError: an image that cannot be read.
        AnswerError: an answer that is not finite.
    """
    manifest = model.manifest
    pixels = [manifest.preprocessing.pixels(path) for path in paths]
    outputs = model.run_all(np.stack([model.prepare(image) for image in pixels]))
    answers = outputs[model.entry.outputs[0].name]
    check_answers(answers, list(paths), model.path.name)
    twins = None if dense is None else dense.answers(np.stack([dense.prepare(image) for image in pixels]), list(paths))
    ends = np.cumsum(manifest.num_prop)[:-1]
    samples = []
    for index, path in enumerate(paths):
        left, receivers = (
            np.split(outputs[name][index], ends) if name in outputs else None for name in ("propagated", "received_by")
        )
        facts = {} if manifest.gives_features else {"model": _best(answers[index], manifest)}
        drawn = _drawn({spec.name: outputs[spec.name] for spec in model.entry.answers}, twins, index, manifest)
        samples.append(Sample(Path(path).name, pixels[index], left or [], receivers, facts, drawn))
    return samples


def _one_a_class(pack: Reference) -> list[int]:
    if pack.labels is None:
        return list(range(len(pack.images)))
    return [int(index) for index in np.unique(pack.labels, return_index=True)[1]]


def _of_pack(pack: Reference, index: int, manifest: Manifest) -> Sample:
    facts: dict[str, str] = {}
    if pack.labels is not None:
        facts["class"] = _class(int(pack.labels[index]), manifest)
    if not manifest.gives_features:
        facts["model"] = _best(pack.answers[index], manifest)
        if pack.dense_answers is not None:
            facts["dense"] = _best(pack.dense_answers[index], manifest)
    receivers = None if pack.received_by is None else [ids[index] for ids in pack.received_by]
    left = [ids[index] for ids in pack.propagated]
    drawn = _drawn(pack.outputs, pack.dense_outputs, index, manifest)
    return Sample(f"image {index} of the reference", pack.images[index], left, receivers, facts, drawn)


def _drawn(
    outputs: Mapping[str, np.ndarray], dense: Mapping[str, np.ndarray] | None, index: int, manifest: Manifest
) -> list[Pictures]:
    """Draw the outputs (N, ...) of an image; none without the dense model's."""
    if dense is None or not manifest.is_dense:
        return []
    one, twin = ({name: values[index] for name, values in each.items()} for each in (outputs, dense))
    return pictures_of(one, twin, manifest)


def _best(logits: np.ndarray, manifest: Manifest) -> str:
    return _class(int(as_classes(logits[None])[0].argmax()), manifest)


def _class(index: int, manifest: Manifest) -> str:
    return manifest.labels[index] if manifest.labels and index < len(manifest.labels) else str(index)


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
