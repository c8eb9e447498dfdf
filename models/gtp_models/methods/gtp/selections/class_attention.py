"""CLSAttn: what the class token attends to."""

from gtp_models.methods.gtp.axes import SELECTIONS, Scores, Seen, Selection
from gtp_models.methods.gtp.selections.heads import REDUCTIONS, Reduce


def class_attention(seen: Seen, reduce: Reduce) -> Scores:
    """Score by the first row of the attention map."""
    return reduce(seen.attention[..., 0, :])


for ending, reduction in REDUCTIONS.items():
    SELECTIONS.add(
        Selection(
            f"CLSAttn{ending}",
            f"the class token's attention, {ending.lower()} over heads",
            lambda seen, reduce=reduction: class_attention(seen, reduce),  # type: ignore[misc]
            needs="class_row",
            needs_class_token=True,
        )
    )
