"""What GTP is measured against: other ways to reduce the tokens of the same models by the same numbers."""

from dataclasses import replace
from typing import Literal, TypeVar, get_args

from torch import nn

from gtp_models.errors import ConfigError
from gtp_models.gtp.config import GTPConfig
from gtp_models.gtp.patch import apply, patch
from gtp_models.rivals.drop import DropBlocks
from gtp_models.rivals.tome import ToMeBlocks

Method = Literal["gtp", "dense", "drop", "prune", "mean", "tome"]
METHODS: tuple[str, ...] = get_args(Method)
Model = TypeVar("Model", bound=nn.Module)


def apply_method(model: Model, method: str, config: GTPConfig) -> Model:
    """Patch a timm model with a method, in place; ``num_prop`` says how many tokens leave in each layer.

    Args:
        model: what ``apply`` takes.
        method: "gtp"; "dense" (no token leaves); "drop" (the last tokens are sliced off, whatever they hold: the floor
            of latency); "prune" (GTP's selection, nothing is handed on); "mean" (their mean joins); "tome" (token
            merging, arXiv 2210.09461).
        config: GTP's settings; "drop" and "tome" use ``num_prop`` alone.

    Raises:
        ConfigError: an unknown method, or settings that do not fit.
        UnsupportedModelError: what ``apply`` refuses.
    """
    if method not in METHODS:
        raise ConfigError(f"no method is called {method!r}: choose one of {', '.join(METHODS)}")
    settings = config_of(method, config)
    if method in ("drop", "tome"):
        kind = DropBlocks if method == "drop" else ToMeBlocks
        return patch(model, settings, lambda blocks, grid, prefix: kind(blocks, settings, grid, prefix))
    return apply(model, settings)


def config_of(method: str, config: GTPConfig) -> GTPConfig:
    """Return the GTP settings that a method stands for; "drop" and "tome" keep the token counts of pruning."""
    if method == "gtp":
        return config
    if method in ("dense", "drop", "tome"):
        return GTPConfig(num_prop=0 if method == "dense" else config.num_prop, propagation="None")
    return replace(config, propagation="Mean" if method == "mean" else "None")
