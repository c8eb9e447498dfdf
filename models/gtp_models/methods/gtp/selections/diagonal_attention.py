"""DiagAttn: the attention that a token gives to itself, the paper's measure of how hard it is to regenerate."""

from gtp_models.methods.gtp.axes import Scores, Seen
from gtp_models.methods.gtp.selections.heads import Reduce, add_for_heads, self_attention


def diagonal_attention(seen: Seen, reduce: Reduce) -> Scores:
    """Score by the diagonal of the attention map."""
    return reduce(self_attention(seen.attention))


add_for_heads("DiagAttn", "the attention of a token to itself", diagonal_attention)
