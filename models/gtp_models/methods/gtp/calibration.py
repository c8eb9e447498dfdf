"""Calibrates thresholds: measures z of the exact threshold on calibration images, for each layer and head."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gtp_models.errors import ConfigError
from gtp_models.frame.attention import Threshold
from gtp_models.frame.patch import install, remove
from gtp_models.methods.gtp.blocks import GTPBlocks
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.gtp.sparsity import exact_threshold, log_statistics
from gtp_models.plan import make_plan


class CalibratingBlocks(GTPBlocks):
    """Modifications: runs with the exact thresholds, and records the z of each."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.z: list[list[Tensor]] = [[] for _ in self.num_prop]

    def threshold(self, index: int) -> Threshold | None:
        if not self.num_prop[index]:
            return None

        def measured(logits: Tensor, attention: Tensor) -> Tensor | None:
            least = exact_threshold(attention, self.config.sparsity)
            if least is not None:
                mean, std = log_statistics(logits, attention)
                z = (least.clamp(min=torch.finfo(least.dtype).tiny).log() - mean) / std.clamp(min=1e-6)
                self.z[index].append(z.reshape(-1, z.shape[-3]))
            return least

        return measured


@torch.inference_mode()
def calibrate(model: Any, config: GTPConfig, batches: Iterable[Tensor]) -> GTPConfig:
    """Return the settings with ``threshold="calibrated"`` and its z, measured on images.

    Args:
        model: as for ``apply``; it is unpatched afterwards.
        config: with a sparsity below 1.
        batches: preprocessed images, (B, 3, H, W) each; a few dozen in total, like those that the model will see.

    Raises:
        ConfigError: nothing to calibrate.
    """
    if config.sparsity == 1:
        raise ConfigError("sparsity is 1, so there is no threshold to calibrate: give a sparsity below 1")
    exact = replace(config, threshold="exact", calibration=None)
    plan = make_plan(model, exact)
    install(model, lambda blocks: CalibratingBlocks(blocks, exact, plan.shape, plan.num_prop))
    for batch in batches:
        model(batch)
    layers = model.blocks.z
    remove(model)
    calibration = tuple(tuple(torch.cat(z).mean(0).tolist()) if z else () for z in layers)
    return replace(config, threshold="calibrated", calibration=calibration)
