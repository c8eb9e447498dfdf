"""Pooling that weighs every token by how many patches it stands for.

After merging, the plain mean counts a merged token once. Weighted by size, it is again the mean over all patches. A
class token needs no change; attention pooling adds the logarithm of the sizes to its keys' logits.
"""

from contextvars import ContextVar
from typing import Any

from jaxtyping import Float
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn
from torch.nn import functional as F

Sizes = Float[Tensor, "batch tokens"]
_sizes: ContextVar[tuple[nn.Module, Sizes] | None] = ContextVar("sizes", default=None)


def hand_over_sizes(blocks: nn.Module, sizes: Sizes | None) -> None:
    """Store the sizes of these blocks' output tokens for the pooling that follows in this thread."""
    _sizes.set(None if sizes is None else (blocks, sizes))


def taken_sizes(blocks: nn.Module) -> Sizes | None:
    """Return the sizes that the latest forward of these blocks stored, and clear them."""
    kept = _sizes.get()
    _sizes.set(None)
    return kept[1] if kept is not None and kept[0] is blocks else None


class PoolBySize:
    """Stands in for a timm model's ``pool``: weighs the tokens of its patched blocks by size.

    Modifications:
    - the mean is weighted by size ("avg", "avgmax")
    - attention pooling adds log size to its keys' logits
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(
        self, x: Float[Tensor, "batch tokens dim"], pool_type: str | None = None
    ) -> Float[Tensor, "batch dim"]:
        """Pool (B, tokens, dim) to (B, dim)."""
        model, sizes = self.model, taken_sizes(self.model.blocks)
        kind = pool_type or model.global_pool
        if sizes is None or (model.attn_pool is None and kind not in ("avg", "avgmax")):
            return type(model).pool(model, x, pool_type)
        if not getattr(model, "pool_include_prefix", model.attn_pool is not None):  # Eva's attention sees all
            x, sizes = x[:, model.num_prefix_tokens :], sizes[:, model.num_prefix_tokens :]
        if model.attn_pool is not None:
            return attention_pool(model.attn_pool, x, sizes)
        mean = weighted_mean(x, sizes)
        return mean if kind == "avg" else 0.5 * (x.amax(1) + mean)


def weighted_mean(x: Float[Tensor, "batch tokens dim"], sizes: Sizes) -> Float[Tensor, "batch dim"]:
    """Return the sum of s_i x_i over the sum of s_i."""
    shares = sizes / sizes.sum(-1, keepdim=True)
    return (shares[:, None] @ x)[:, 0]


def attention_pool(pool: Any, x: Float[Tensor, "batch tokens dim"], sizes: Sizes) -> Float[Tensor, "batch dim"]:
    """Run timm's attention pooling with log size added to its keys' logits."""
    mask = sizes.log()[:, None, None]
    if isinstance(pool, AttentionPoolLatent):
        return pool(x, attn_mask=mask)
    heads = pool.pre_norm(x).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)  # AttentionPoolPrr
    mixed = F.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask)
    refined = pool.post_norm(mixed.transpose(1, 2).flatten(2))
    return weighted_mean(refined, sizes) if pool.pool == "avg" else refined[:, 0]
