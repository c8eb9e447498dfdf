"""Folders of images for the scripts here."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gtp_exporters.reference import ReferenceImages, folder_images, synthetic_images
from gtp_exporters.subject import labels_of, preprocessing_of
from gtp_models import Recipe


def labelled(folder: Path, recipe: Recipe, model: Any, limit: int | None = None) -> tuple[ReferenceImages, Tensor]:
    """Return images of a folder with one sub-folder per class, at most ``limit`` spread over it, and (N,) labels."""
    names = labels_of(recipe, model.num_classes)
    images = folder_images(folder, preprocessing_of(model), *names, model.num_classes, limit)
    if images.labels is None:
        raise SystemExit(f"{folder} needs one sub-folder per class, named like the recipe's labels")
    return images, torch.from_numpy(images.labels)


def synthetic(folder: Path, count: int = 128) -> Path:
    """Fill a folder with synthetic images, where it is not there yet: to calibrate on where only time counts."""
    if not folder.exists():
        folder.mkdir()
        for index, pixels in enumerate(synthetic_images([224, 224], count).pixels):
            Image.fromarray(np.asarray(pixels)).save(folder / f"{index}.png")
    return folder
