"""Published methods to measure accuracy against: eager PyTorch alone, no export; written from their papers.

Importing this package adds them to ``gtp_models.METHODS``, as an application adds a method of its own.
"""

from baselines.atc import ATCSettings
from baselines.pitome import PiToMeSettings

__all__ = ["ATCSettings", "PiToMeSettings"]
