"""The exporter: from a model to traced, simplified and checked ONNX files in an artifact directory.

Importing this package loads neither torch nor onnx: names (``__init__.pyi``) are imported on first use.
"""

import logging

from gtp_models._lazy import lazy  # importing gtp_models puts the hook in place that mends torchvision

logging.getLogger(__name__).addHandler(logging.NullHandler())
__getattr__, __dir__, __all__ = lazy(__name__, __file__)
