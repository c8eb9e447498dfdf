"""timm Vision Transformers patched with GTP, their weights, recipes and MACs.

Importing this package loads neither torch nor timm: names (``__init__.pyi``) are imported on first use.
"""

import logging

from gtp_models import _torchvision
from gtp_models._lazy import lazy

_torchvision.install()
logging.getLogger(__name__).addHandler(logging.NullHandler())
__getattr__, __dir__, __all__ = lazy(__name__, __file__)
