"""What a patched model costs: tokens and multiply-accumulates (MACs) layer by layer, for one image."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from timm.layers import AttentionPoolLatent
from torch import Tensor, nn

from gtp_models.gtp.config import GTPConfig
from gtp_models.gtp.patch import check_selection, check_supported
from gtp_models.rivals import config_of


@dataclass(frozen=True)
class LayerCost:
    """One transformer layer.

    Attributes:
        tokens_in: tokens that attend, prefix tokens included.
        tokens_out: tokens that pass the MLP.
        macs: multiply-accumulates of the backbone's products.
        gtp_macs: those of propagation and selection.
    """

    tokens_in: int
    tokens_out: int
    macs: int
    gtp_macs: int


@dataclass(frozen=True)
class Cost:
    """A whole model on one image; MACs count products (linear, convolution, attention) only.

    Attributes:
        layers: one entry a transformer layer.
        embed: MACs of the patch embedding.
        head: MACs of what follows the blocks.
        graph: MACs of the token graph.
        dense: MACs of the same model without GTP.
    """

    layers: tuple[LayerCost, ...]
    embed: int
    head: int
    graph: int
    dense: int

    @property
    def backbone(self) -> int:
        """MACs of the backbone with GTP's tokens."""
        return self.embed + self.head + sum(layer.macs for layer in self.layers)

    @property
    def gtp(self) -> int:
        """MACs that GTP itself adds: graph, selection, propagation."""
        return self.graph + sum(layer.gtp_macs for layer in self.layers)

    @property
    def total(self) -> int:
        """All MACs."""
        return self.backbone + self.gtp


def cost(model: Any, config: GTPConfig, method: str = "gtp") -> Cost:
    """Count tokens and MACs of a timm model, patched or not, as a method with ``config`` would make it.

    Raises:
        UnsupportedModelError: ``apply`` cannot patch the model.
        ConfigError: settings that do not fit the model.
    """
    check_supported(model)
    config = config_of(method, config)
    check_selection(model, config)
    prefix, patches = model.num_prefix_tokens, model.patch_embed.num_patches
    counts = [count + prefix for count in config.counts(len(model.blocks), patches)]
    layers = tuple(
        _layer(block, config, method, tokens, amount, after)
        for block, tokens, amount, after in zip(
            model.blocks, counts, config.schedule(len(model.blocks)), counts[1:], strict=False
        )
    )
    embed = _embed(model.patch_embed)
    head = _head(model, counts[-1])
    dense = embed + _head(model, counts[0]) + sum(_block(block, counts[0], counts[0]) for block in model.blocks)
    semantic = config.uses_semantics and any(config.schedule(len(model.blocks)))
    return Cost(layers, embed, head, counts[0] ** 2 * model.embed_dim if semantic else 0, dense)


def _layer(block: Any, config: GTPConfig, method: str, tokens: int, amount: int, after: int) -> LayerCost:
    gtp, dim = 0, block.attn.proj.out_features
    if amount and method == "tome":
        first, second = (tokens + 1) // 2, tokens // 2
        gtp = first * second * block.attn.head_dim + second * amount * (dim + 1)
    if amount and config.uses_graph:
        gtp += (tokens - amount) * amount * (dim + int(config.token_scale))
    if amount and method != "drop" and config.selection.startswith("CosSim"):
        gtp += tokens * tokens
    return LayerCost(tokens, after, _block(block, tokens, after), gtp)


def _block(block: Any, tokens: int, after: int) -> int:
    products = 2 * tokens * tokens * block.attn.num_heads * block.attn.head_dim
    return products + tokens * _linear(block.attn) + after * _linear(block.mlp)


def _embed(patch_embed: Any) -> int:
    """Count a chain of convolutions, each at the size that the ones before leave."""
    total, size = 0, patch_embed.img_size
    for conv in (part for part in patch_embed.modules() if isinstance(part, nn.Conv2d)):
        sides: Any = zip(size, conv.padding, conv.kernel_size, conv.stride, strict=True)
        size = [(side + 2 * int(padding) - kernel) // stride + 1 for side, padding, kernel, stride in sides]
        total += prod(size) * prod(conv.weight.shape)
    return total


def _head(model: Any, tokens: int) -> int:
    classifiers = [model.head, *([model.head_dist] if hasattr(model, "head_dist") else [])]
    of_image_tokens = _linear(model.aux_head) if hasattr(model, "aux_head") else 0  # LV-ViT
    pool = _attention_pool(model, tokens) if model.attn_pool is not None else 0
    return sum(map(_linear, classifiers)) + (tokens - model.num_prefix_tokens) * of_image_tokens + pool


def _attention_pool(model: Any, tokens: int) -> int:
    pool, seen = model.attn_pool, tokens
    if not getattr(model, "pool_include_prefix", True):  # Eva has no choice
        seen -= model.num_prefix_tokens
    if not isinstance(pool, AttentionPoolLatent):  # timm's other pool has no weights: tokens attend to each other
        return 2 * seen * seen * model.embed_dim
    keys_values = _linear(pool.kv)
    attention = seen * (keys_values + 2 * pool.latent_len * model.embed_dim)
    return attention + pool.latent_len * (_linear(pool) - keys_values)


def _linear(module: nn.Module) -> int:
    return sum(prod(weight.shape) for weight in _weights(module))


def _weights(module: nn.Module) -> Iterator[Tensor]:
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            yield part.weight
