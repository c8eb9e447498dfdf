"""Calibrates thresholds on a folder of images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from gtp_exporters.data_config import preprocessing_of
from gtp_exporters.subject import Subject
from gtp_models.errors import ConfigError
from gtp_models.methods.gtp.calibration import calibrate
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.settings import Settings
from gtp_runtime.images.folders import find_images, spread
from gtp_runtime.progress import Progress, quiet

LIMIT = 256  # images, spread over the folder
CHUNK = 8


def calibrated(
    subject: Subject, settings: Settings, folder: Path | None, progress: Progress, *, shared: bool = False
) -> Settings:
    """Return the settings, calibrated on a folder or on the recipe's own images if they need it.

    Args:
        subject: the model.
        settings: settings of any method.
        folder: calibration images.
        progress: called with the current task.
        shared: the folder calibrates something else as well, so it may have nothing to calibrate here.

    Raises:
        ConfigError: a folder and nothing to calibrate, or the other way round.
        ImageError: no images, or one that cannot be read.
    """
    if not isinstance(settings, GTPConfig) or not settings.needs_calibration:
        if folder is not None and not shared:
            raise ConfigError(
                "calibration images have no effect here: they need a sparsity below 1, threshold='calibrated', and no "
                "calibration yet; leave out --calib-data"
            )
        return settings
    return calibrate_on(subject.model, settings, folder or subject.built.recipe.calibration, progress)


def calibrate_on(model: Any, config: GTPConfig, folder: Path | None, progress: Progress = quiet) -> GTPConfig:
    """Return the settings with z measured on the images of a folder, at most ``LIMIT`` spread over it.

    Raises:
        ConfigError: no folder, or nothing to calibrate.
        ImageError: no images, or one that cannot be read.
    """
    if folder is None:
        raise ConfigError(
            "threshold='calibrated' needs calibration images: give --calib-data DIR, a folder of a few dozen "
            "training images"
        )
    paths, preprocessing = spread(find_images(folder), LIMIT), preprocessing_of(model)

    def batch(start: int) -> torch.Tensor:
        progress("calibrating thresholds", start / len(paths))
        return torch.from_numpy(np.stack([preprocessing(path) for path in paths[start : start + CHUNK]]))

    return calibrate(model, config, map(batch, range(0, len(paths), CHUNK)))
