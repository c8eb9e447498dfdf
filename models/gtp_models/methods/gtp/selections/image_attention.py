"""IMGAttn: the attention that a token receives from all tokens."""

from gtp_models.methods.gtp.axes import Scores, Seen
from gtp_models.methods.gtp.selections.heads import Reduce, add_for_heads, received_attention


def image_attention(seen: Seen, reduce: Reduce) -> Scores:
    """Score by the column sums of the attention map."""
    return reduce(received_attention(seen.attention))


add_for_heads("IMGAttn", "the attention received from all tokens", image_attention)
