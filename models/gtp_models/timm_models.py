"""timm's models by name, and LV-ViT beside them: whether there is one, and one with random or pretrained weights."""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed

import gtp_models.lvvit  # noqa: F401 - registers what timm does not have
from gtp_models.errors import ConfigError, UnknownModelError, closest
from gtp_runtime.messages import one_line

# what timm raises of arguments that it cannot use
REJECTIONS = (TypeError, ValueError, AssertionError, ArithmeticError, LookupError, AttributeError, RuntimeError)
TRANSFORMERS = ["vit*", "deit*", "lvvit*"]  # where to look for close matches of a wrong name


def check_timm_name(name: str) -> None:
    """Check that timm has such a model and tag.

    Raises:
        UnknownModelError: it has not; the message offers the closest names.
    """
    if not timm.is_model(name):
        raise UnknownModelError(f"timm has no model {name!r}: {closest(name, timm.list_models(TRANSFORMERS))}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)
        raise UnknownModelError(f"timm has no weights {name!r}: {closest(name, tags)}") from error


def create(name: str, arguments: Mapping[str, Any], overlay: Mapping[str, Any], pretrained: bool = False) -> Any:
    """Create a timm model in eval mode, with one image size.

    Args:
        name: timm's, with its tag if that matters.
        arguments: further arguments of ``timm.create_model``.
        overlay: entries that replace timm's pretrained configuration.
        pretrained: whether to load timm's weights.

    Raises:
        ConfigError: timm rejects the arguments, or the image size leaves a margin beside the patches.
        OSError, RuntimeError: the pretrained weights cannot be loaded.
    """
    fixed: dict[str, Any] = {"pretrained_cfg_overlay": dict(overlay) or None}
    try:
        model = timm.create_model(name, pretrained=pretrained, **fixed, **arguments)
        if getattr(model, "dynamic_img_size", False) and "dynamic_img_size" not in arguments:
            state = model.state_dict()  # the same weights; every export has one image size
            model = timm.create_model(name, dynamic_img_size=False, **fixed, **arguments)
            model.load_state_dict(state)
    except REJECTIONS as error:
        if pretrained and isinstance(error, RuntimeError):  # of the weights
            raise
        values = ", ".join(f"{key}={value!r:.40}" for key, value in arguments.items())
        raise ConfigError(f"timm cannot build {name} with {values}: {one_line(error)}") from error
    if "img_size" in arguments:  # timm's own sizes may leave a margin: 384 pixels in patches of 14
        _check_size(model, name)
    return model.eval()


def create_outline(name: str, arguments: Mapping[str, Any], overlay: Mapping[str, Any]) -> Any:
    """Create a timm model without weights, on the meta device; arguments as for ``create``.

    Raises:
        ConfigError: timm rejects the arguments.
        UnknownModelError: timm has no such model.
    """
    check_timm_name(name)
    with torch.device("meta"):
        return create(name, arguments, overlay)


def _check_size(model: Any, name: str) -> None:
    embedding = getattr(model, "patch_embed", None)
    if not isinstance(embedding, PatchEmbed) or embedding.img_size is None:
        return
    if any(size % patch for size, patch in zip(embedding.img_size, embedding.patch_size, strict=True)):
        size, patch = ("x".join(map(str, pixels)) for pixels in (embedding.img_size, embedding.patch_size))
        raise ConfigError(f"{size} pixels do not divide into {name}'s patches of {patch}: give a multiple")
