"""Graph-based Token Propagation (arXiv 2311.03035, WACV 2024).

Three axes, a file each: ``selections`` (which tokens leave), ``graphs`` (which tokens are neighbours) and
``propagations`` (what the tokens that stay receive); ``axes`` says what their entries define. ``config`` holds the
settings, ``blocks`` put the axes to use in a layer; ``sparsity`` and ``calibration`` are the attention threshold of
section 3.4.
"""

from gtp_models.methods.gtp.config import GTPConfig

__all__ = ["GTPConfig"]
