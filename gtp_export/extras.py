"""The pip extras: what each makes possible. Those of backends come from their registry."""

from gtp_runtime.backends import all_backends
from gtp_runtime.extras import Extra

EXPORT = Extra(
    "export",
    {
        "torch": "torch",
        "torchvision": "torchvision",
        "timm": "timm",
        "onnx": "onnx",
        "onnxscript": "onnxscript",
        "onnxsim": "onnxsim",
        "onnxruntime": "onnxruntime",
        "safetensors": "safetensors",
        "yaml": "pyyaml",
        "jaxtyping": "jaxtyping",
    },
)


def abilities() -> dict[str, tuple[Extra, ...]]:
    """Return what gtp-export can do, in words ("can …"), and the extras of which one is needed for it."""
    return {"export models": (EXPORT,), **{f"run {spec.runs}": spec.extras for spec in all_backends().values()}}


def extra_of(module: str) -> Extra | None:
    """Return the extra that installs a top-level module; a backend's own before the large one of the export."""
    extras = [extra for choices in abilities().values() for extra in choices]
    found = [extra for extra in extras if module in {name.partition(".")[0] for name in extra.packages}]
    return min(found, key=lambda extra: len(extra.packages), default=None)
