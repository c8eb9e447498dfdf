"""Sample images for the page, with what happens to their tokens in each layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from gtp_runtime import Manifest, Model
from gtp_runtime.images.folders import spread
from gtp_runtime.manifest import REFERENCE_NAME, check_file
from gtp_runtime.predicting import check_answers
from gtp_runtime.reference import Reference, read_reference

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
    """

    name: str
    pixels: np.ndarray
    left: list[np.ndarray]
    receivers: list[np.ndarray] | None
    facts: dict[str, str]


def samples_of_pack(directory: Path, manifest: Manifest) -> list[Sample]:
    """Return some images of the parity pack, one a class as far as there are classes.

    Raises:
        ManifestError: no parity pack, or a damaged one.
    """
    check_file(directory / REFERENCE_NAME, manifest)
    pack = read_reference(directory / REFERENCE_NAME)
    chosen = spread(_one_a_class(pack), SHOWN)
    return [_of_pack(pack, index, manifest) for index in chosen]


def samples_of_files(model: Model, paths: Sequence[str | PathLike[str]]) -> list[Sample]:
    """Return images with their tokens as a loaded file says; without a trace output nothing is known of the tokens.

    Raises:
        ImageError: an image that cannot be read.
        AnswerError: an answer that is not finite.
    """
    manifest = model.manifest
    pixels = [manifest.preprocessing.pixels(path) for path in paths]
    outputs = model.run_all(np.stack([model.prepare(image) for image in pixels]))
    answers = outputs[model.entry.outputs[0].name]
    check_answers(answers, list(paths), model.path.name)
    ends = np.cumsum(manifest.num_prop)[:-1]
    samples = []
    for index, path in enumerate(paths):
        left, receivers = (
            np.split(outputs[name][index], ends) if name in outputs else None for name in ("propagated", "received_by")
        )
        facts = {} if manifest.gives_features else {"model": _class(int(answers[index].argmax()), manifest)}
        samples.append(Sample(Path(path).name, pixels[index], left or [], receivers, facts))
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
        facts["model"] = _class(int(pack.answers[index].argmax()), manifest)
        if pack.dense_answers is not None:
            facts["dense"] = _class(int(pack.dense_answers[index].argmax()), manifest)
    receivers = None if pack.received_by is None else [ids[index] for ids in pack.received_by]
    left = [ids[index] for ids in pack.propagated]
    return Sample(f"image {index} of the reference", pack.images[index], left, receivers, facts)


def _class(index: int, manifest: Manifest) -> str:
    return manifest.labels[index] if manifest.labels and index < len(manifest.labels) else str(index)
