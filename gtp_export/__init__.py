"""gtp-export deploys pretrained Vision Transformers on edge devices: faster with GTP, and with proven parity.

    import gtp_export
    gtp_export.apply(model, gtp_export.GTPConfig(num_prop=8))   # patch a timm model, in place
    gtp_export.export("deit_s", weights="deit_s.safetensors")   # or export a model to files
    gtp_export.load("build/deit_s").predict("cat.jpg")          # run the exported model

Importing this package loads neither torch, timm nor onnx: names (``__init__.pyi``) are imported on first use.
"""

import logging

from gtp_models._lazy import lazy  # importing gtp_models puts the hook in place that mends torchvision

logging.getLogger(__name__).addHandler(logging.NullHandler())
__getattr__, __dir__, __all__ = lazy(__name__, __file__)
