"""DiagAttn: the attention that a token gives to itself, the paper's measure of how hard it is to regenerate."""

from gtp_models.methods.gtp.axes import SELECTIONS, Scores, Seen, Selection
from gtp_models.methods.gtp.selections.heads import REDUCTIONS, Reduce, self_attention


def diagonal_attention(seen: Seen, reduce: Reduce) -> Scores:
    """Score by the diagonal of the attention map."""
    return reduce(self_attention(seen.attention))


for ending, reduction in REDUCTIONS.items():
    SELECTIONS.add(
        Selection(
            f"DiagAttn{ending}",
            f"the attention of a token to itself, {ending.lower()} over heads",
            lambda seen, reduce=reduction: diagonal_attention(seen, reduce),  # type: ignore[misc]
        )
    )
