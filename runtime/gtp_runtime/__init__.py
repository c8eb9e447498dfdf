"""The runtime: runs exported files, proves parity and measures latency. It needs an inference engine, but no torch.

with gtp_runtime.load("build/digits/model.onnx") as model:
    model.predict("seven.png")
"""

import logging

from gtp_runtime import errors
from gtp_runtime.accuracy import Accuracy
from gtp_runtime.comparing import benchmark, evaluate
from gtp_runtime.latency import Latency
from gtp_runtime.loading import load
from gtp_runtime.manifest import Manifest, read_manifest
from gtp_runtime.model import Model
from gtp_runtime.parity import Parity
from gtp_runtime.predicting import Prediction
from gtp_runtime.preprocessing import Preprocessing

__all__ = [
    "Accuracy",
    "Latency",
    "Manifest",
    "Model",
    "Parity",
    "Prediction",
    "Preprocessing",
    "benchmark",
    "errors",
    "evaluate",
    "load",
    "read_manifest",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
