"""CLSAttn: what the class token attends to."""

from gtp_models.methods.gtp.axes import Scores, Seen
from gtp_models.methods.gtp.selections.heads import Reduce, add_for_heads


def class_attention(seen: Seen, reduce: Reduce) -> Scores:
    """Score by the first row of the attention map."""
    return reduce(seen.attention[..., 0, :])


add_for_heads("CLSAttn", "the class token's attention", class_attention, needs="class_row", needs_class_token=True)
