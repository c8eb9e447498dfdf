"""Regeneration: how hard a token is to regenerate from those before it, measured on the tokens themselves.

The paper asks how hard it is to regenerate a token from the others (section 3.2) and estimates that from the diagonal
of the attention map. Here it is measured: the cost of a token is its distance to the most similar image token before
it, times the number of patches that it stands for. Of two near-equal tokens one stays: only earlier tokens count.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gtp_models.frame.cosines import NEVER
from gtp_models.methods.gtp.axes import SELECTIONS, Scores, Seen, Selection
from gtp_models.methods.gtp.sketch import sketch_size


def before(tokens: int, num_prefix: int) -> Float[Tensor, "tokens tokens"]:
    """Return what is added to similarities so that each image token sees the image tokens before it alone.

    Prefix tokens and the first image token see themselves: their cost is 0, and they are held.
    """
    place = torch.arange(tokens)
    seen = (place[None] < place[:, None]) & (place[None] >= num_prefix)
    seen |= torch.eye(tokens, dtype=torch.bool) & (place[:, None] <= num_prefix)
    return torch.where(seen, 0.0, NEVER)


def regeneration_cost(seen: Seen) -> Scores:
    """Return (1 - largest cosine similarity to an image token before) * size."""
    similarity = seen.directions @ seen.directions.mT
    mask = before(seen.tokens.count, seen.tokens.num_prefix).to(similarity)
    cost = 1 - (similarity + mask).amax(-1)
    return cost if seen.tokens.scale is None else cost * seen.tokens.scale.squeeze(-2)


SELECTIONS.add(
    Selection(
        "Regeneration",
        "distance to the most similar token before it, times its size",
        regeneration_cost,
        needs="tokens",
        held=1,
        macs=lambda layer: layer.tokens**2 * sketch_size(layer.model.dim),
    )
)
