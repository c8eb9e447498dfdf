"""Folders of images for the scripts here."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gtp_exporters.reference import ReferenceImages, folder_images, synthetic_images
from gtp_exporters.subject import preprocessing_of
from gtp_models.class_names import names_of
from gtp_models.weights import BuiltModel
from gtp_runtime.images.class_folders import KnownClasses


def labelled(folder: Path, built: BuiltModel, limit: int | None = None) -> tuple[ReferenceImages, Tensor]:
    """Return images of a folder with one sub-folder per class, at most ``limit`` spread over it, and (N,) labels."""
    model = built.model
    (labels, label_ids), _ = names_of(built, model.num_classes)
    images = folder_images(folder, preprocessing_of(model), KnownClasses(labels, label_ids, model.num_classes), limit)
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
