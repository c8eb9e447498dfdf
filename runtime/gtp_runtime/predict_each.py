"""Classifies any number of images, one after the other: one that cannot be read does not lose the others."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from gtp_runtime.errors import ImageError
from gtp_runtime.images.decoding import ImageLike
from gtp_runtime.predicting import Prediction, best_classes
from gtp_runtime.read_ahead import read_ahead

if TYPE_CHECKING:
    from gtp_runtime.model import Model

Answer = list[Prediction] | ImageError


def predict_each(
    model: "Model", images: Iterable[ImageLike], topk: int, exif: bool, workers: int
) -> Iterator[tuple[ImageLike, Answer]]:
    """Do what ``Model.predict_each`` says."""

    def read(image: ImageLike) -> np.ndarray | ImageError:
        try:
            return model.preprocess(image, exif=exif)
        except ImageError as error:
            return error

    with closing(read_ahead(read, images, workers)) as found:
        while part := list(islice(found, model.batch)):
            pixels = [entry for _, entry in part if not isinstance(entry, ImageError)]
            names = [image for image, entry in part if not isinstance(entry, ImageError)]
            answers = iter(_answers(model, pixels, names, topk))
            yield from ((image, entry if isinstance(entry, ImageError) else next(answers)) for image, entry in part)


def _answers(model: "Model", pixels: list[np.ndarray], names: list[ImageLike], topk: int) -> list[list[Prediction]]:
    if not pixels:
        return []
    return best_classes(model.logits(np.stack(pixels), names), model.manifest.labels, topk)
