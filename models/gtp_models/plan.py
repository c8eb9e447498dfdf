"""The plan: the number of tokens and the MACs of each layer, computed once from a model and settings.

The patch installs the plan, limits check it, and the manifest describes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gtp_models.counts import token_counts
from gtp_models.frame.patch import check_supported
from gtp_models.macs import block_macs, embed_macs, head_macs, size_pooling_macs
from gtp_models.methods.settings import LayerShape, ModelShape, Settings
from gtp_models.schedules import resolve


@dataclass(frozen=True)
class LayerPlan:
    """One transformer layer.

    Attributes:
        tokens_in: tokens in the attention, prefix tokens included.
        tokens_out: tokens in the MLP, prefix tokens included.
        num_prop: tokens removed between the two.
        macs: multiply-accumulates of the backbone's products, for one image.
        method_macs: multiply-accumulates of the method itself (selection, propagation).
    """

    tokens_in: int
    tokens_out: int
    num_prop: int
    macs: int
    method_macs: int


@dataclass(frozen=True)
class Plan:
    """The effect of a method on a model. MACs are for one image and count products only.

    Attributes:
        settings: the method's settings, with ``num_prop`` for each layer.
        shape: the properties of the model.
        layers: one entry per transformer layer.
        embed: MACs of the patch embedding.
        head: MACs of what follows the blocks.
        setup: MACs of the method before the first layer (GTP's token graph).
        pooling: MACs of weighting tokens by size in the pooling, for methods that merge.
        dense: MACs of the model without any method.
        asked: the settings as they were given; None for a plan that was not made from settings.
    """

    settings: Settings
    shape: ModelShape
    layers: tuple[LayerPlan, ...]
    embed: int
    head: int
    setup: int
    pooling: int
    dense: int
    asked: Settings | None = field(default=None, compare=False)

    @property
    def num_prop(self) -> tuple[int, ...]:
        """Number of tokens removed in each layer."""
        return tuple(layer.num_prop for layer in self.layers)

    @property
    def backbone(self) -> int:
        """MACs of the backbone with token reduction."""
        return self.embed + self.head + sum(layer.macs for layer in self.layers)

    @property
    def method_macs(self) -> int:
        """MACs that the method itself adds."""
        return self.setup + self.pooling + sum(layer.method_macs for layer in self.layers)

    @property
    def total(self) -> int:
        """All MACs."""
        return self.backbone + self.method_macs

    @property
    def ratio(self) -> float:
        """MACs of the backbone over the dense model's."""
        return self.backbone / self.dense

    def layer_shape(self, index: int) -> LayerShape:
        """Return the properties of a layer."""
        layer = self.layers[index]
        return LayerShape(self.shape, layer.tokens_in, layer.num_prop)


def make_plan(model: Any, settings: Settings) -> Plan:
    """Compute the plan for a timm model, patched or not; the model may be on the meta device.

    Args:
        model: as for ``apply``.
        settings: a method's settings.

    Raises:
        UnsupportedModelError: ``apply`` cannot patch the model.
        ConfigError: settings that do not fit the model.
    """
    check_supported(model)
    shape = model_shape(model)
    costs = _Costs(model, settings, shape)
    num_prop = resolve(settings, shape, costs)
    settings = settings.resolved(num_prop)
    settings.check(shape)
    return costs.plan(settings, num_prop)


def model_shape(model: Any) -> ModelShape:
    """Return the properties of a timm model."""
    attentions = [block.attn for block in model.blocks]
    return ModelShape(
        grid=tuple(model.patch_embed.grid_size),
        num_prefix=model.num_prefix_tokens,
        has_class_token=model.cls_token is not None,
        dim=model.embed_dim,
        heads=tuple(attention.num_heads for attention in attentions),
        head_dim=attentions[0].head_dim,
    )


class _Costs:
    """MACs of a model for any numbers of tokens; each block is counted once for each number."""

    def __init__(self, model: Any, settings: Settings, shape: ModelShape) -> None:
        self._model, self._settings, self._shape = model, settings, shape
        self._blocks: dict[tuple[int, int, int], int] = {}
        self._embed = embed_macs(model.patch_embed)
        start = shape.patches + shape.num_prefix
        layers = range(shape.depth)
        self.dense = self._embed + head_macs(model, start) + sum(self._block(layer, start, start) for layer in layers)

    def backbone(self, num_prop: Sequence[int]) -> int:
        """Return the MACs of the backbone where these numbers of tokens leave.

        Raises:
            ConfigError: more leave than there are.
        """
        counts = token_counts(self._settings, self._shape, num_prop)
        layers = sum(self._block(layer, *counts[layer : layer + 2]) for layer in range(self._shape.depth))
        return self._embed + head_macs(self._model, counts[-1]) + layers

    def plan(self, settings: Settings, num_prop: Sequence[int]) -> Plan:
        """Return the plan of a schedule."""
        counts = token_counts(settings, self._shape, num_prop)
        layers = tuple(
            LayerPlan(
                counts[layer],
                counts[layer + 1],
                amount,
                self._block(layer, *counts[layer : layer + 2]),
                settings.layer_macs(LayerShape(self._shape, counts[layer], amount)) if amount else 0,
            )
            for layer, amount in enumerate(num_prop)
        )
        setup = settings.setup_macs(self._shape) if any(num_prop) else 0
        pooling = size_pooling_macs(self._model, counts[-1]) if settings.merges and any(num_prop) else 0
        head = head_macs(self._model, counts[-1])
        return Plan(settings, self._shape, layers, self._embed, head, setup, pooling, self.dense, self._settings)

    def _block(self, layer: int, tokens: int, after: int) -> int:
        key = (layer, tokens, after)
        if key not in self._blocks:
            self._blocks[key] = block_macs(self._model.blocks[layer], tokens, after)
        return self._blocks[key]
