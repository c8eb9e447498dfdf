"""The runtime: runs exported files, proves parity and measures latency. It needs an inference engine, but no torch.

    with gtp_runtime.load("build/digits/model.onnx") as model:
        model.predict("seven.png")

Importing this package loads nothing else: each name is imported from its module on first use (PEP 562).

It switches the telemetry of dependencies off, unless the user decided. ONNX Runtime from 1.29 on writes a device id to
the user's cache, asks for a host of its maker within seconds, and its reporting thread makes a forked child hang at its
end. Ray and huggingface_hub report usage. A variable that is set in the environment already stays as it is;
``GTP_RUNTIME_TELEMETRY=1`` leaves all of them to their makers' defaults. ONNX Runtime decides when it is imported: an
application that imports it itself does so after ``gtp_runtime``.
"""

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gtp_runtime import errors as errors

TELEMETRY_SWITCH = "GTP_RUNTIME_TELEMETRY"
TELEMETRY_OFF = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def switch_telemetry_off() -> None:
    """Set the variables that keep dependencies from reporting; it must run before they are imported."""
    if os.environ.get(TELEMETRY_SWITCH, "0") in ("", "0"):
        for name, value in TELEMETRY_OFF.items():
            os.environ.setdefault(name, value)


switch_telemetry_off()

if TYPE_CHECKING:
    from gtp_runtime.accuracy import Accuracy as Accuracy
    from gtp_runtime.accuracy import Metric as Metric
    from gtp_runtime.deploy.install import Installed as Installed
    from gtp_runtime.deploy.install import install as install
    from gtp_runtime.deploy.install import rollback as rollback
    from gtp_runtime.deploy.watch import Stats as Stats
    from gtp_runtime.evaluation import evaluate as evaluate
    from gtp_runtime.footprint import Footprint as Footprint
    from gtp_runtime.footprint import measure_footprint as measure_footprint
    from gtp_runtime.images.decoding import from_bgr as from_bgr
    from gtp_runtime.images.decoding import from_nv12 as from_nv12
    from gtp_runtime.images.folders import ImageSet as ImageSet
    from gtp_runtime.images.labels import find_image_set as find_image_set
    from gtp_runtime.images.preprocessing import Preprocessing as Preprocessing
    from gtp_runtime.latency import Latency as Latency
    from gtp_runtime.latency import benchmark as benchmark
    from gtp_runtime.loading import load as load
    from gtp_runtime.manifest import Manifest as Manifest
    from gtp_runtime.manifest import read_manifest as read_manifest
    from gtp_runtime.model import Model as Model
    from gtp_runtime.parity import Parity as Parity
    from gtp_runtime.prediction import Prediction as Prediction

_HOMES = {  # the module that each name is imported from
    "Accuracy": "accuracy",
    "Footprint": "footprint",
    "ImageSet": "images.folders",
    "Installed": "deploy.install",
    "Latency": "latency",
    "Manifest": "manifest",
    "Metric": "accuracy",
    "Model": "model",
    "Parity": "parity",
    "Prediction": "prediction",
    "Preprocessing": "images.preprocessing",
    "Stats": "deploy.watch",
    "benchmark": "latency",
    "evaluate": "evaluation",
    "find_image_set": "images.labels",
    "from_bgr": "images.decoding",
    "from_nv12": "images.decoding",
    "install": "deploy.install",
    "load": "loading",
    "measure_footprint": "footprint",
    "read_manifest": "manifest",
    "rollback": "deploy.install",
}
__all__ = ["errors"]
__all__.extend(_HOMES)
__all__.sort()

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
