"""Calibrates settings on images: the z of each exact threshold, and the moves of the selection "Fixed"."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gtp_models.errors import ConfigError
from gtp_models.frame.attention import AttentionOutput, Threshold
from gtp_models.frame.patch import install, remove
from gtp_models.frame.tokens import Tokens
from gtp_models.frame.trace import Layer
from gtp_models.methods.gtp.blocks import GTPBlocks
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.methods.gtp.fixed import Moves, fitted_moves, fixed_steps
from gtp_models.methods.gtp.sparsity import exact_threshold, log_statistics
from gtp_models.methods.settings import ModelShape
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


class FittingBlocks(GTPBlocks):
    """Modifications: holds back the images' tokens before the first block, and fits the moves layer by layer."""

    def __init__(self, blocks: Any, config: GTPConfig, shape: ModelShape, num_prop: Sequence[int]) -> None:
        super().__init__(blocks, config, shape, num_prop)
        self.shape = shape
        self.before: list[Tokens] = []
        self.similarity: Tensor | None = None  # summed over images, while it is measured

    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:
        self.before.append(self.embedded(x, rope))
        return x

    def moves(self) -> Moves:
        """Return the moves of every layer, by all images that were run."""
        moves: list[tuple[tuple[int, int], ...]] = []
        for index, amount in enumerate(self.num_prop):
            moves.append(self._fitted(index, amount) if amount else ())
            self.fixed = fixed_steps(tuple(moves), self.shape)
            if any(self.num_prop[index + 1 :]):
                self.before = [self.run_block(index, tokens).tokens for tokens in self.before]
        return tuple(moves)

    def _fitted(self, index: int, amount: int) -> tuple[tuple[int, int], ...]:
        self.similarity = self.before[0].x.new_zeros(())
        for tokens in self.before:
            self.run_block(index, tokens)
        total, self.similarity = self.similarity, None
        tokens, prefix = self.before[0], self.num_prefix
        sizes = tokens.sizes()
        patches = tokens.image_ids()[0].tolist()
        of_patches = torch.ones(len(patches)) if sizes is None else sizes[0, prefix:]
        similarity = total / sum(tokens.batch for tokens in self.before)
        return fitted_moves(similarity.cpu(), of_patches.cpu(), patches, amount)

    def reduce(self, tokens: Tokens, attention: AttentionOutput, amount: int) -> Layer:
        if self.similarity is None:
            return super().reduce(tokens, attention, amount)
        rows = tokens.x.view(tokens.batch, tokens.count, -1)[:, self.num_prefix :]
        unit = torch.nn.functional.normalize(rows, dim=-1)
        self.similarity = self.similarity + (unit @ unit.mT).sum(0)
        return Layer(tokens, tokens.positions()[..., :0])  # not used


@torch.inference_mode()
def calibrate(model: Any, config: GTPConfig, batches: Iterable[Tensor]) -> GTPConfig:
    """Return the settings with what they need to be measured on images.

    With a sparsity below 1 that is ``threshold="calibrated"`` and its z; with ``selection="Fixed"`` the tokens that
    leave, and where to.

    Args:
        model: as for ``apply``; it is unpatched afterwards.
        config: with a sparsity below 1, or the selection "Fixed".
        batches: preprocessed images, (B, 3, H, W) each; a few dozen in total, like those that the model will see.

    Raises:
        ConfigError: nothing to calibrate, or no images.
    """
    if config.sparsity == 1 and not config.axes[0].is_fixed:
        raise ConfigError("sparsity is 1, so there is no threshold to calibrate: give a sparsity below 1")
    batches = list(batches)
    if not batches:
        raise ConfigError("no images to calibrate on: give a few dozen, like those that the model will see")
    if config.needs_moves:
        config = _with_moves(model, config, batches)
    return config if config.sparsity == 1 else _with_thresholds(model, config, batches)


def _with_moves(model: Any, config: GTPConfig, batches: Iterable[Tensor]) -> GTPConfig:
    """Return the settings with moves that are fitted to images, of all entries of the attention map."""
    plan = make_plan(model, config.uncalibrated())
    install(model, lambda blocks: FittingBlocks(blocks, replace(config, sparsity=1.0), plan.shape, plan.num_prop))
    for batch in batches:
        model(batch)
    moves = model.blocks.moves()
    remove(model)
    return replace(config.resolved(plan.num_prop), moves=moves)


def _with_thresholds(model: Any, config: GTPConfig, batches: Iterable[Tensor]) -> GTPConfig:
    exact = replace(config, threshold="exact", calibration=None)
    plan = make_plan(model, exact)
    install(model, lambda blocks: CalibratingBlocks(blocks, exact, plan.shape, plan.num_prop))
    for batch in batches:
        model(batch)
    layers = model.blocks.z
    remove(model)
    calibration = tuple(tuple(torch.cat(z).mean(0).tolist()) if z else () for z in layers)
    return replace(config, threshold="calibrated", calibration=calibration)
