"""CosSim: how little a token's attention row resembles those of the others."""

from gtp_models.methods.gtp.axes import Scores, Seen
from gtp_models.methods.gtp.selections.heads import Reduce, add_for_heads


def cosine_dissimilarity(seen: Seen, reduce: Reduce) -> Scores:
    """Score by minus the summed cosine similarity of a token's attention row to those of all image tokens."""
    rows = reduce(seen.attention.movedim(-3, -2))
    unit = rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    total = unit[..., seen.tokens.num_prefix :, :].sum(-2)
    return -(unit @ total[..., None])[..., 0]


SUMMARY = "dissimilarity of a token's attention to the others'"
add_for_heads("CosSim", SUMMARY, cosine_dissimilarity, macs=lambda layer: layer.tokens**2)
