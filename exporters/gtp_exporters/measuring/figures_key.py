"""The key of figures that are kept: what was measured under another key answers another question."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gtp_exporters.graph.describe import tool_versions
from gtp_models.recipes import Recipe
from gtp_runtime.errors import ImageError
from gtp_runtime.fleet.node import code_digests
from gtp_runtime.images.folders import ImageSet, image_names
from gtp_runtime.manifest import Manifest


def figures_key(
    recipe: Recipe, manifest: Manifest, images: ImageSet, calibration: Path | None, device: Mapping[str, str]
) -> dict[str, Any]:
    """Return what figures of a recipe's model depend on, in values that JSON gives back unchanged.

    Args:
        recipe: the model.
        manifest: of an export of it: its weights, preprocessing and classes.
        images: what accuracy is measured on.
        calibration: a folder of images that thresholds or int8 are calibrated on.
        device: where latency is measured, as ``gtp_runtime.machine.describe_machine`` returns it.
    """
    key = {
        "model": {"timm": recipe.timm, "arguments": recipe.model_args, "classes": manifest.model.num_classes},
        "image size": manifest.preprocessing.crop,
        "settings": recipe.gtp,
        "weights": manifest.weights.sha256,
        "preprocessing": asdict(manifest.preprocessing),
        "images": f"{len(images)} {images.stamp()}",
        "calibration images": _stamp(calibration),
        "device": dict(device),
        "versions": tool_versions(),
        "code": code_digests(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(key, default=str))  # YAML has dates, which are refused later
    return plain


def _stamp(folder: Path | None) -> str | None:
    """Return a hash of a folder's images; None without one."""
    try:
        return None if folder is None else ImageSet(folder, image_names(folder)).stamp()
    except ImageError:  # said where images are needed
        return None
