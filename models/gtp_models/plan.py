"""The plan: the number of tokens and the MACs of each layer, worked out once from a model and settings.

The patch installs the plan, limits check it, and the manifest describes it. Multiply-accumulates (MACs) are those of
linear layers, convolutions and attention, for one image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from timm.layers import AttentionPoolLatent
from torch import nn

from gtp_models.errors import ConfigError
from gtp_models.frame.patch import check_supported
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

    >>> import gtp_models, timm
    >>> plan = make_plan(timm.create_model("deit_small_patch16_224"), gtp_models.GTPConfig(num_prop=8))
    >>> [layer.tokens_out for layer in plan.layers[:3]], round(plan.ratio, 3)
    ([189, 181, 173], 0.743)
    """
    check_supported(model)
    shape = model_shape(model)
    costs = ModelCosts(model, settings, shape)
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


class ModelCosts:
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


def token_counts(settings: Settings, shape: ModelShape, num_prop: Sequence[int]) -> list[int]:
    """Return how many tokens stand before each layer and after the last, prefix tokens included: depth + 1 numbers.

    Raises:
        ConfigError: more leave than there are.
    """
    counts = _walk(settings, shape, num_prop)
    layer = len(counts) - 1
    if layer < len(num_prop):
        raise ConfigError(
            f"num_prop={list(num_prop)} removes {num_prop[layer]} of the {counts[-1] - shape.num_prefix} image tokens "
            f"left in layer {layer} (of 0 to {shape.depth - 1}): {settings.name} takes at most "
            f"{_most(settings, shape, counts[-1])} there{_largest(settings, shape, num_prop)}"
        )
    return counts


def _walk(settings: Settings, shape: ModelShape, num_prop: Sequence[int]) -> list[int]:
    """Return the counts, only up to the first layer that has too few tokens."""
    counts = [shape.patches + shape.num_prefix]
    for amount in num_prop:
        if amount > _most(settings, shape, counts[-1]):
            break
        counts.append(_after(settings, counts[-1], amount))
    return counts


def _most(settings: Settings, shape: ModelShape, tokens: int) -> int:
    """Return how many of ``tokens``, prefix tokens included, may leave."""
    return max(0, settings.most(tokens - shape.num_prefix, shape.num_prefix))


def _after(settings: Settings, tokens: int, amount: int) -> int:
    return tokens - amount + (settings.joins if amount else 0)


def _largest(settings: Settings, shape: ModelShape, num_prop: Sequence[int]) -> str:
    """Name the largest number that fits, if one number was given for all layers."""
    if len(set(num_prop)) > 1:
        return ""
    amount = next(amount for amount in range(num_prop[0] - 1, -1, -1) if _fits(settings, shape, amount))
    return f"; with one number for all layers at most {amount} fits"


def _fits(settings: Settings, shape: ModelShape, amount: int) -> bool:
    """Whether this number of tokens can leave in every layer; none always can."""
    return len(_walk(settings, shape, [amount] * shape.depth)) == shape.depth + 1


def block_macs(block: Any, tokens: int, after: int) -> int:
    """Count a block with ``tokens`` tokens in the attention and ``after`` in the MLP."""
    products = 2 * tokens * tokens * block.attn.num_heads * block.attn.head_dim
    return products + tokens * _linear(block.attn) + after * _linear(block.mlp)


def embed_macs(patch_embed: Any) -> int:
    """Count the patch embedding: a chain of convolutions, each on the output of the one before."""
    total, size = 0, patch_embed.img_size
    for conv in (part for part in patch_embed.modules() if isinstance(part, nn.Conv2d)):
        sides: Any = zip(size, conv.padding, conv.kernel_size, conv.stride, strict=True)
        size = [(side + 2 * int(padding) - kernel) // stride + 1 for side, padding, kernel, stride in sides]
        total += prod(size) * prod(conv.weight.shape)
    return total


def head_macs(model: Any, tokens: int) -> int:
    """Count what follows the blocks: pooling and heads over ``tokens``, prefix included."""
    classifiers = [model.head, *([model.head_dist] if hasattr(model, "head_dist") else [])]
    of_image_tokens = _linear(model.aux_head) if hasattr(model, "aux_head") else 0  # LV-ViT
    pool = _attention_pool(model, tokens) if model.attn_pool is not None else 0
    return sum(map(_linear, classifiers)) + (tokens - model.num_prefix_tokens) * of_image_tokens + pool


def size_pooling_macs(model: Any, tokens: int) -> int:
    """Count what ``frame.pooling`` adds if tokens have sizes: the weighted mean is a product."""
    pool = model.attn_pool
    if not getattr(model, "pool_include_prefix", pool is not None):
        tokens -= model.num_prefix_tokens
    averages = model.global_pool in ("avg", "avgmax") if pool is None else getattr(pool, "pool", None) == "avg"
    return tokens * model.embed_dim if averages and not isinstance(pool, AttentionPoolLatent) else 0


def _attention_pool(model: Any, tokens: int) -> int:
    pool = model.attn_pool
    if not getattr(model, "pool_include_prefix", True):  # Eva has no choice
        tokens -= model.num_prefix_tokens
    if not isinstance(pool, AttentionPoolLatent):  # timm's other pool has no weights: tokens attend to each other
        return 2 * tokens * tokens * model.embed_dim
    keys_values = _linear(pool.kv)
    attention = tokens * (keys_values + 2 * pool.latent_len * model.embed_dim)
    return attention + pool.latent_len * (_linear(pool) - keys_values)


def _linear(module: nn.Module) -> int:
    layers = (part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d))
    return sum(prod(layer.weight.shape) for layer in layers)
