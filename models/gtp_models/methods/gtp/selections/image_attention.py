"""IMGAttn: the attention that a token receives from all tokens."""

from gtp_models.methods.gtp.axes import SELECTIONS, Scores, Seen, Selection
from gtp_models.methods.gtp.selections.heads import REDUCTIONS, Reduce, received_attention


def image_attention(seen: Seen, reduce: Reduce) -> Scores:
    """Score by the column sums of the attention map."""
    return reduce(received_attention(seen.attention))


for ending, reduction in REDUCTIONS.items():
    SELECTIONS.add(
        Selection(
            f"IMGAttn{ending}",
            f"the attention received from all tokens, {ending.lower()} over heads",
            lambda seen, reduce=reduction: image_attention(seen, reduce),  # type: ignore[misc]
        )
    )
