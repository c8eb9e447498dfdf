"""Mean: the mean of the removed tokens becomes one new token."""

from dataclasses import replace

import torch

from gtp_models.frame.tokens import Tokens
from gtp_models.methods.gtp.axes import PROPAGATIONS, Edges, Parted, Propagation


def mean(parted: Parted, edges: Edges | None) -> Tokens:  # noqa: ARG001
    """Append the leaving tokens' mean, with their mean scale; its original id is -1.

    It has no place, so a rotary embedding leaves it as it is (``rotary.rope_table``).
    """
    kept, left = parted.kept, parted.left
    assert kept.ids is not None
    rows = (*kept.axes, -1, kept.x.shape[-1])
    x = torch.cat([kept.x.view(rows), left.x.view(rows).mean(-2, keepdim=True)], dim=-2)
    ids = torch.nn.functional.pad(kept.ids, (0, 1), value=kept.num_prefix - 1)
    scale = kept.scale
    if scale is not None and left.scale is not None:
        scale = torch.cat([scale, left.scale.mean(-1, keepdim=True)], dim=-1)
    return replace(kept, x=x.reshape(-1, kept.x.shape[-1]), ids=ids, scale=scale)


PROPAGATIONS.add(Propagation("Mean", "the mean of the removed tokens becomes one new token", mean, joins=1))
