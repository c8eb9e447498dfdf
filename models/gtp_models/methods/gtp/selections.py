"""Token selection (arXiv 2311.03035, section 3.2): which tokens stay.

The selections of the paper read the attention map; their names end in how heads are reduced. ``Regeneration`` reads the
tokens themselves. ``Fixed`` reads nothing: it was fitted before (``fixed``).
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from gtp_models.errors import ConfigError
from gtp_models.frame.attention import AttentionMap
from gtp_models.frame.tokens import NEVER
from gtp_models.methods.gtp.axes import Scores, Selection, State
from gtp_models.methods.gtp.sketch import sketch_size
from gtp_runtime.registry import Registry

HeadScores = Float[Tensor, "*batch heads tokens"]
Reduce = Callable[[Tensor], Tensor]
BLOCK = 256  # rows of tokens that are compared with those before them at once, at least
SELECTIONS: Registry[Selection] = Registry("selection", ConfigError)


def mean_heads(values: Tensor) -> Tensor:
    """Reduce the second last axis, the heads, by their mean."""
    return values.mean(-2)


def max_heads(values: Tensor) -> Tensor:
    """Reduce the second last axis, the heads, by their maximum."""
    return values.amax(-2)


def received_attention(attention: AttentionMap) -> HeadScores:
    """Return what all tokens together give to each token: the column sums."""
    return attention.sum(-2)


def self_attention(attention: AttentionMap) -> HeadScores:
    """Return what each token gives to itself: the diagonal, every (N + 1)-th entry of the flattened map."""
    return attention.flatten(-2)[..., :: attention.shape[-1] + 1]


def class_attention(state: State, reduce: Reduce) -> Scores:
    """Score by what the class token attends to: the first row of the attention map."""
    return reduce(state.attention[..., 0, :])


def image_attention(state: State, reduce: Reduce) -> Scores:
    """Score by the attention that a token receives from all tokens: the column sums of the map."""
    return reduce(received_attention(state.attention))


def diagonal_attention(state: State, reduce: Reduce) -> Scores:
    """Score by the attention of a token to itself, the paper's measure of how hard it is to regenerate."""
    return reduce(self_attention(state.attention))


def mixed_attention(state: State, reduce: Reduce) -> Scores:
    """Score by the product of attention to itself and attention received, each reduced over heads first."""
    return diagonal_attention(state, reduce) * image_attention(state, reduce)


def summed_attention(state: State, reduce: Reduce) -> Scores:
    """Score by the sum of attention to itself and attention received, each reduced over heads first."""
    return diagonal_attention(state, reduce) + image_attention(state, reduce)


def cosine_dissimilarity(state: State, reduce: Reduce) -> Scores:
    """Score by minus the summed cosine similarity of a token's attention row to those of all image tokens."""
    rows = reduce(state.attention.movedim(-3, -2))
    unit = rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    total = unit[..., state.tokens.num_prefix :, :].sum(-2)
    return -(unit @ total[..., None])[..., 0]


def regeneration_cost(state: State) -> Scores:
    """Score by how hard a token is to regenerate from those before it, measured on the tokens themselves.

    The paper asks how hard it is to regenerate a token from the others and estimates that from the diagonal of the
    attention map. Here it is measured: the cost of a token is its distance to the most similar image token before it,
    times the number of patches that it stands for: (1 - largest cosine) * size. Of two near-equal tokens one stays:
    only earlier tokens count.
    """
    cost = 1 - nearest_before(state.directions, state.tokens.num_prefix)
    return cost if state.tokens.scale is None else cost * state.tokens.scale.squeeze(-2)


def nearest_before(directions: Float[Tensor, "*batch tokens dim"], num_prefix: int) -> Float[Tensor, "*batch tokens"]:
    """Return each token's largest similarity to the image tokens before it, block by block of rows.

    What stands behind a block's last row is not compared: with many tokens that is nearly half of the products.
    """
    count = directions.shape[-2]
    mask = earlier_tokens(count, num_prefix).to(directions)
    parts = []
    for first, end in row_blocks(count):
        similarity = directions[..., first:end, :] @ directions[..., :end, :].mT
        parts.append((similarity + mask[first:end, :end]).amax(-1))
    return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]


def row_blocks(tokens: int) -> list[tuple[int, int]]:
    """Return the first and the end of each block of rows: one for few tokens, else ``BLOCK`` rows or more each."""
    blocks = max(1, tokens // BLOCK)
    ends = [tokens * (block + 1) // blocks for block in range(blocks)]
    return list(zip([0, *ends], ends, strict=False))


def compared_pairs(tokens: int) -> int:
    """Return how many pairs of tokens ``nearest_before`` compares."""
    return sum((end - first) * end for first, end in row_blocks(tokens))


def earlier_tokens(tokens: int, num_prefix: int) -> Float[Tensor, "tokens tokens"]:
    """Return what is added to similarities so that each image token is compared to the image tokens before it alone.

    Prefix tokens and the first image token are compared to themselves: their cost is 0, and they are held.
    """
    place = torch.arange(tokens)
    compared = (place[None] < place[:, None]) & (place[None] >= num_prefix)
    compared |= torch.eye(tokens, dtype=torch.bool) & (place[:, None] <= num_prefix)
    return torch.where(compared, 0.0, NEVER)


for entry in (
    Selection(
        "CLSAttnMean",
        "the class token's attention, mean over heads",
        partial(class_attention, reduce=mean_heads),
        needs="class_row",
        needs_class_token=True,
    ),
    Selection(
        "CLSAttnMax",
        "the class token's attention, max over heads",
        partial(class_attention, reduce=max_heads),
        needs="class_row",
        needs_class_token=True,
    ),
    Selection(
        "IMGAttnMean",
        "the attention received from all tokens, mean over heads",
        partial(image_attention, reduce=mean_heads),
    ),
    Selection(
        "IMGAttnMax",
        "the attention received from all tokens, max over heads",
        partial(image_attention, reduce=max_heads),
    ),
    Selection(
        "DiagAttnMean",
        "the attention of a token to itself, mean over heads",
        partial(diagonal_attention, reduce=mean_heads),
    ),
    Selection(
        "DiagAttnMax",
        "the attention of a token to itself, max over heads",
        partial(diagonal_attention, reduce=max_heads),
    ),
    Selection(
        "MixedAttnMean",
        "attention to itself times attention received, mean over heads",
        partial(mixed_attention, reduce=mean_heads),
    ),
    Selection(
        "MixedAttnMax",
        "attention to itself times attention received, max over heads",
        partial(mixed_attention, reduce=max_heads),
    ),
    Selection(
        "SumAttnMax",
        "attention to itself plus attention received, max over heads",
        partial(summed_attention, reduce=max_heads),
    ),
    Selection(
        "CosSimMean",
        "dissimilarity of a token's attention to the others', mean over heads",
        partial(cosine_dissimilarity, reduce=mean_heads),
        macs=lambda layer: layer.tokens**2,
    ),
    Selection(
        "CosSimMax",
        "dissimilarity of a token's attention to the others', max over heads",
        partial(cosine_dissimilarity, reduce=max_heads),
        macs=lambda layer: layer.tokens**2,
    ),
    Selection(
        "Regeneration",
        "distance to the most similar token before it, times its size",
        regeneration_cost,
        needs="tokens",
        held=1,
        macs=lambda layer: compared_pairs(layer.tokens) * sketch_size(layer.model.dim),
    ),
    Selection(
        "Fixed",
        "the same tokens of every image, fitted on calibration images: for scenes that stand still",
        None,
        needs="tokens",
        held=1,
    ),
):
    SELECTIONS.add(entry)
