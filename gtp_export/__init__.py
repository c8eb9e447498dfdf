"""gtp-export: put a pretrained Vision Transformer on an edge device, faster, and know that it answers the same.

    import gtp_export
    gtp_export.apply(model, gtp_export.GTPConfig(num_prop=8))   # patch a timm model, in place
    gtp_export.export("deit_s", weights="deit_s.safetensors")   # or straight to files
    gtp_export.load("build/deit_s").predict("cat.jpg")          # and run them

Importing this package loads neither torch, timm nor onnx; names resolve when they are first used.
"""

from typing import TYPE_CHECKING

from gtp_models._lazy import lazy  # importing gtp_models puts the hook in place that mends torchvision

if TYPE_CHECKING:
    from gtp_exporters.options import ExportOptions
    from gtp_exporters.pipeline import Exported, export
    from gtp_exporters.tensorrt.building import EngineOptions
    from gtp_exporters.tensorrt.engine import Engine, build_engine
    from gtp_models.frame.patch import remove, trace_tokens
    from gtp_models.frame.trace import Step
    from gtp_models.methods.apply import apply
    from gtp_models.methods.gtp.calibration import calibrate
    from gtp_models.methods.gtp.config import GTPConfig
    from gtp_models.plan import Plan, make_plan
    from gtp_models.recipes import Recipe, load_recipe, recipe_names
    from gtp_models.weights import build_model
    from gtp_runtime.loading import load
    from gtp_runtime.model import Model

_HOMES = {
    "Engine": "gtp_exporters",
    "EngineOptions": "gtp_exporters",
    "Exported": "gtp_exporters",
    "GTPConfig": "gtp_models",
    "Model": "gtp_runtime",
    "ExportOptions": "gtp_exporters",
    "Plan": "gtp_models",
    "Recipe": "gtp_models",
    "Step": "gtp_models",
    "apply": "gtp_models",
    "build_engine": "gtp_exporters",
    "build_model": "gtp_models",
    "calibrate": "gtp_models",
    "export": "gtp_exporters",
    "load": "gtp_runtime",
    "load_recipe": "gtp_models",
    "make_plan": "gtp_models",
    "recipe_names": "gtp_models",
    "remove": "gtp_models",
    "trace_tokens": "gtp_models",
}
__all__ = [
    "Engine",
    "EngineOptions",
    "ExportOptions",
    "Exported",
    "GTPConfig",
    "Model",
    "Plan",
    "Recipe",
    "Step",
    "apply",
    "build_engine",
    "build_model",
    "calibrate",
    "export",
    "load",
    "load_recipe",
    "make_plan",
    "recipe_names",
    "remove",
    "trace_tokens",
]

__getattr__, __dir__ = lazy(__name__, _HOMES)
