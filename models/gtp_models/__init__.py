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
    from gtp_models.frame.patch import remove, trace_tokens
    from gtp_models.frame.trace import Step
    from gtp_models.methods import METHODS, make_settings
    from gtp_models.methods.apply import apply
    from gtp_models.methods.gtp.calibration import calibrate
    from gtp_models.methods.gtp.config import GTPConfig
    from gtp_models.methods.settings import Settings
    from gtp_models.plan import LayerPlan, Plan, make_plan
    from gtp_models.recipes import Recipe, load_recipe, recipe_names
    from gtp_models.weights import BuiltModel, build_model

_HOMES = {
    "BuiltModel": "gtp_models.weights",
    "ConfigError": "gtp_models.errors",
    "GTPConfig": "gtp_models.methods.gtp.config",
    "LayerPlan": "gtp_models.plan",
    "METHODS": "gtp_models.methods",
    "ModelsError": "gtp_models.errors",
    "Plan": "gtp_models.plan",
    "Recipe": "gtp_models.recipes",
    "Settings": "gtp_models.methods.settings",
    "Step": "gtp_models.frame.trace",
    "UnknownModelError": "gtp_models.errors",
    "UnsupportedModelError": "gtp_models.errors",
    "WeightsError": "gtp_models.errors",
    "WeightsUnavailableError": "gtp_models.errors",
    "apply": "gtp_models.methods.apply",
    "calibrate": "gtp_models.methods.gtp.calibration",
    "build_model": "gtp_models.weights",
    "load_recipe": "gtp_models.recipes",
    "make_plan": "gtp_models.plan",
    "make_settings": "gtp_models.methods",
    "recipe_names": "gtp_models.recipes",
    "remove": "gtp_models.frame.patch",
    "trace_tokens": "gtp_models.frame.patch",
}
__all__ = [
    "METHODS",
    "BuiltModel",
    "ConfigError",
    "GTPConfig",
    "LayerPlan",
    "ModelsError",
    "Plan",
    "Recipe",
    "Settings",
    "Step",
    "UnknownModelError",
    "UnsupportedModelError",
    "WeightsError",
    "WeightsUnavailableError",
    "apply",
    "build_model",
    "calibrate",
    "load_recipe",
    "make_plan",
    "make_settings",
    "recipe_names",
    "remove",
    "trace_tokens",
]

_torchvision.install()

__getattr__, __dir__ = lazy(__name__, _HOMES)
