"""Multiply-accumulates (MACs) of the parts of a timm model for one image: linear layers, convolutions, attention."""

from collections.abc import Iterator
from math import prod
from typing import Any

from timm.layers import AttentionPoolLatent
from torch import Tensor, nn


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
    pool, seen = model.attn_pool, tokens
    if not getattr(model, "pool_include_prefix", pool is not None):
        seen -= model.num_prefix_tokens
    averaged = model.global_pool in ("avg", "avgmax") if pool is None else getattr(pool, "pool", None) == "avg"
    return seen * model.embed_dim if averaged and not isinstance(pool, AttentionPoolLatent) else 0


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
