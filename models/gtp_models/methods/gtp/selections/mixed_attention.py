"""MixedAttn and SumAttn: attention to itself and attention received, multiplied or added."""

from gtp_models.methods.gtp.axes import SELECTIONS, Scores, Seen, Selection
from gtp_models.methods.gtp.selections.diagonal_attention import diagonal_attention
from gtp_models.methods.gtp.selections.heads import Reduce, add_for_heads, max_heads
from gtp_models.methods.gtp.selections.image_attention import image_attention


def mixed_attention(seen: Seen, reduce: Reduce) -> Scores:
    """Score by the product of both, each reduced over heads first."""
    return diagonal_attention(seen, reduce) * image_attention(seen, reduce)


def summed_attention(seen: Seen) -> Scores:
    """Score by the sum of both, each the largest of all heads."""
    return diagonal_attention(seen, max_heads) + image_attention(seen, max_heads)


add_for_heads("MixedAttn", "attention to itself times attention received", mixed_attention)
SELECTIONS.add(Selection("SumAttnMax", "attention to itself plus attention received, max over heads", summed_attention))
