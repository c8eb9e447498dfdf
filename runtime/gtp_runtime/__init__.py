"""The runtime: runs exported files, proves parity and measures latency. It needs an inference engine, but no torch.

with gtp_runtime.load("build/digits/model.onnx") as model:
    model.predict("seven.png")
"""

import logging

from gtp_runtime import errors
from gtp_runtime.accuracy import Accuracy
from gtp_runtime.comparing import benchmark
from gtp_runtime.evaluating import evaluate
from gtp_runtime.footprint import Footprint, measure_footprint
from gtp_runtime.frames import from_bgr, from_nv12
from gtp_runtime.image_set import ImageSet, find_image_set
from gtp_runtime.latency import Latency
from gtp_runtime.loading import load
from gtp_runtime.manifest import Manifest, read_manifest
from gtp_runtime.model import Model
from gtp_runtime.parity import Parity
from gtp_runtime.predicting import Prediction
from gtp_runtime.preprocessing import Preprocessing

__all__ = [
    "Accuracy",
    "Footprint",
    "ImageSet",
    "Latency",
    "Manifest",
    "Model",
    "Parity",
    "Prediction",
    "Preprocessing",
    "benchmark",
    "errors",
    "evaluate",
    "find_image_set",
    "from_bgr",
    "from_nv12",
    "load",
    "measure_footprint",
    "read_manifest",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
