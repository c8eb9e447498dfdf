"""A timm model that the caller holds, patched or not: what ``export`` needs to know of it."""

import copy
import re
from dataclasses import replace
from typing import Any

from torch import nn

from gtp_models.choosing import choose
from gtp_models.errors import UnsupportedModelError
from gtp_models.frame.patch import check_supported, is_patched, remove
from gtp_models.heads import without_head
from gtp_models.methods.settings import Settings
from gtp_models.recipes import Recipe
from gtp_models.weights import BuiltModel, state_sha256


def take(module: nn.Module, head: str) -> tuple[BuiltModel, Settings | None]:
    """Return a copy of a module as a built model, not patched, and the settings that it was patched with.

    Args:
        module: a timm model; it stays as it is, and its own ``pretrained_cfg`` says how images are prepared.
        head: "none" leaves the classifier out.

    Raises:
        UnsupportedModelError: no timm model, or one that cannot be patched.
    """
    config: dict[str, Any] = dict(getattr(module, "pretrained_cfg", None) or {})
    if not config.get("architecture"):
        raise UnsupportedModelError(
            f"{type(module).__name__} has no pretrained_cfg of timm: make it with timm.create_model, or give a recipe"
        )
    settings = _settings(module)
    model: Any = remove(copy.deepcopy(module).cpu().float().eval())
    check_supported(model)
    gtp, why = choose(model)
    name = ".".join(filter(None, (config["architecture"], config.get("tag"))))
    recipe = Recipe(re.sub(r"[^A-Za-z0-9_-]+", "_", name), name, name, gtp=gtp, why=why)
    if head == "none":
        model.reset_classifier(0)
        recipe = replace(without_head(recipe), model_args={})
    return BuiltModel(model, recipe, "file", "a module in memory", state_sha256(model.state_dict())), settings


def _settings(module: Any) -> Settings | None:
    if not is_patched(module):
        return None
    settings: Settings | None = getattr(module.blocks, "settings", None)
    return settings
