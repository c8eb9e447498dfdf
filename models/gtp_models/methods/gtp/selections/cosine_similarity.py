"""CosSim: how little a token's attention row resembles those of the others."""

from gtp_models.methods.gtp.axes import SELECTIONS, Scores, Seen, Selection
from gtp_models.methods.gtp.selections.heads import REDUCTIONS, Reduce


def cosine_dissimilarity(seen: Seen, reduce: Reduce) -> Scores:
    """Score by minus the summed cosine similarity of a token's attention row to those of all image tokens."""
    rows = reduce(seen.attention.movedim(-3, -2))
    unit = rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    total = unit[..., seen.tokens.num_prefix :, :].sum(-2)
    return -(unit @ total[..., None])[..., 0]


for ending, reduction in REDUCTIONS.items():
    SELECTIONS.add(
        Selection(
            f"CosSim{ending}",
            f"dissimilarity of a token's attention to the others', {ending.lower()} over heads",
            lambda seen, reduce=reduction: cosine_dissimilarity(seen, reduce),  # type: ignore[misc]
            macs=lambda layer: layer.tokens**2,
        )
    )
