"""Nearest: one edge, from each token that leaves to the most similar image token that stays, computed in the layer."""

import torch
from torch import Tensor

from gtp_models.frame.tokens import take
from gtp_models.methods.gtp.axes import GRAPHS, Edges, Graph, Parted, Seen
from gtp_models.methods.gtp.sketch import sketch_size
from gtp_models.methods.settings import LayerShape


def nearest(seen: Seen, parted: Parted) -> Edges:
    """Mark each leaving token's receiver; of equally similar ones the first in the current order."""
    prefix = seen.tokens.num_prefix
    left, stay = (_picked(seen, positions) for positions in (parted.leaving, parted.staying[..., prefix:]))
    chosen = (left @ stay.mT).argmax(-1)
    places = torch.arange(-prefix, stay.shape[-2], device=chosen.device)
    return Edges((chosen[..., None] == places).to(left.dtype), chosen + prefix)


def _picked(seen: Seen, positions: Tensor) -> Tensor:
    rows = take(seen.directions.flatten(0, -2), positions, seen.tokens.count)
    return rows.view(*positions.shape, -1)


def _macs(layer: LayerShape) -> int:
    candidates = layer.tokens - layer.num_prop - layer.model.num_prefix
    return layer.num_prop * candidates * sketch_size(layer.model.dim)


GRAPHS.add(Graph("Nearest", "the most similar kept token, found in the layer", nearest, one_receiver=True, macs=_macs))
