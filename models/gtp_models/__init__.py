"""What is exported: timm Vision Transformers patched with GTP, their weights, recipes and cost.

Importing this package loads neither torch nor timm; names resolve when they are first used.
"""

from typing import TYPE_CHECKING

from gtp_models import _torchvision
from gtp_models._lazy import lazy

if TYPE_CHECKING:
    from gtp_models.errors import (
        ConfigError,
        ModelsError,
        UnknownModelError,
        UnsupportedModelError,
        WeightsError,
        WeightsUnavailableError,
    )
    from gtp_models.gtp.calibration import calibrate
    from gtp_models.gtp.config import GTPConfig
    from gtp_models.gtp.patch import apply, remove, trace_tokens
    from gtp_models.gtp.trace import Step
    from gtp_models.macs import Cost, LayerCost, cost
    from gtp_models.recipes import Recipe, load_recipe, recipe_names
    from gtp_models.rivals import apply_method
    from gtp_models.weights import BuiltModel, build_model

_HOMES = {
    "BuiltModel": "gtp_models.weights",
    "ConfigError": "gtp_models.errors",
    "Cost": "gtp_models.macs",
    "GTPConfig": "gtp_models.gtp.config",
    "LayerCost": "gtp_models.macs",
    "ModelsError": "gtp_models.errors",
    "Recipe": "gtp_models.recipes",
    "Step": "gtp_models.gtp.trace",
    "UnknownModelError": "gtp_models.errors",
    "UnsupportedModelError": "gtp_models.errors",
    "WeightsError": "gtp_models.errors",
    "WeightsUnavailableError": "gtp_models.errors",
    "apply": "gtp_models.gtp.patch",
    "apply_method": "gtp_models.rivals",
    "calibrate": "gtp_models.gtp.calibration",
    "build_model": "gtp_models.weights",
    "cost": "gtp_models.macs",
    "load_recipe": "gtp_models.recipes",
    "recipe_names": "gtp_models.recipes",
    "remove": "gtp_models.gtp.patch",
    "trace_tokens": "gtp_models.gtp.patch",
}
__all__ = [
    "BuiltModel",
    "ConfigError",
    "Cost",
    "GTPConfig",
    "LayerCost",
    "ModelsError",
    "Recipe",
    "Step",
    "UnknownModelError",
    "UnsupportedModelError",
    "WeightsError",
    "WeightsUnavailableError",
    "apply",
    "apply_method",
    "build_model",
    "calibrate",
    "cost",
    "load_recipe",
    "recipe_names",
    "remove",
    "trace_tokens",
]

_torchvision.install()

__getattr__, __dir__ = lazy(__name__, _HOMES)
