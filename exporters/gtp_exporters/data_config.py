"""Translates timm's data configuration and class names to those of the manifest."""

import math
from collections.abc import Mapping
from typing import Any

from timm.data import ImageNetInfo, resolve_model_data_config

from gtp_models.errors import ConfigError
from gtp_models.recipes import Recipe
from gtp_runtime.errors import ManifestError
from gtp_runtime.images.preprocessing import Preprocessing
from gtp_runtime.text import one_line

_RESIZE_MODES = {"squash": "squash", "border": "contain"}


def preprocessing_of(model: Any) -> Preprocessing:
    """Return the preprocessing of a timm model, at the image size it was made with.

    Raises:
        ConfigError: the recipe's ``preprocessing`` holds something that is none.
    """
    try:
        config = resolve_model_data_config(model)
        return to_preprocessing({**config, "input_size": (3, *model.patch_embed.img_size)})
    except (TypeError, ValueError, ArithmeticError, LookupError, AssertionError, ManifestError) as error:
        reason = one_line(error).removesuffix(": export again")
        raise ConfigError(f"the model's preprocessing cannot be used ({reason}): mend it in the recipe") from error


def to_preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    """Translate timm's resolved data configuration (``timm.data.resolve_data_config``)."""
    crop = list(config["input_size"][-2:])
    resize = [math.floor(side / config["crop_pct"]) for side in crop]
    mode = _RESIZE_MODES.get(config["crop_mode"], "shortest" if resize[0] == resize[1] else "cover")
    mean, std = ([float(value) for value in config[name]] for name in ("mean", "std"))
    fill = [round(255 * value) for value in mean] if mode == "contain" else [0, 0, 0]
    return Preprocessing(resize, mode, crop, config["interpolation"], mean, std, fill)


def labels_of(recipe: Recipe, num_classes: int) -> tuple[list[str] | None, list[str] | None]:
    """Return class names and further ids of the same classes; None where they do not fit or are unknown."""
    if recipe.labels == "imagenet-1k" and num_classes == 1000:
        info = ImageNetInfo("imagenet-1k")
        return info.label_descriptions(), info.label_names()
    if isinstance(recipe.labels, list) and len(recipe.labels) == num_classes:
        return recipe.labels, None
    return None, None
