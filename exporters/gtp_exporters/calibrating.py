"""Calibrates thresholds on a folder of images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from gtp_exporters.data_config import preprocessing_of
from gtp_models.errors import ConfigError
from gtp_models.gtp.calibration import calibrate
from gtp_models.gtp.config import GTPConfig
from gtp_runtime.images import find_images, spread

LIMIT = 256  # images, spread over the folder
CHUNK = 8


def calibrate_on(model: Any, config: GTPConfig, folder: Path | None) -> GTPConfig:
    """Return the settings with z measured on the images of a folder, at most ``LIMIT`` spread over it.

    Raises:
        ConfigError: no folder, or nothing to calibrate.
        ImageError: no images, or one that cannot be read.
    """
    if folder is None:
        raise ConfigError(
            "threshold='calibrated' needs images like those that the model will see: give --calib-data DIR, "
            "a folder of some dozens of training images"
        )
    paths, preprocessing = spread(find_images(folder), LIMIT), preprocessing_of(model)
    chunks = (paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK))
    batches = (torch.from_numpy(np.stack([preprocessing(path) for path in chunk])) for chunk in chunks)
    return calibrate(model, config, batches)
