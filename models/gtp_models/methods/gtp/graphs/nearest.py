"""Nearest: one edge, from each token that leaves to the most similar image token that stays, computed in the layer."""

import torch
from torch import Tensor

from gtp_models.frame.cosines import NEVER
from gtp_models.frame.tokens import add_product, take
from gtp_models.methods.gtp.axes import GRAPHS, Edges, Graph, Parted, Seen
from gtp_models.methods.gtp.sketch import sketch_size
from gtp_models.methods.settings import LayerShape


def nearest(seen: Seen, parted: Parted) -> Edges:
    """Mark each leaving token's receiver; of equally similar ones the first in the current order."""
    left, stay = (_picked(seen, positions) for positions in (parted.leaving, parted.staying))
    places = torch.arange(stay.shape[-2], device=stay.device)
    receives = torch.where(places < seen.tokens.num_prefix, NEVER, 0.0).to(stay)[None]
    chosen = add_product(receives, left, stay.mT).argmax(-1)
    return Edges((chosen[..., None] == places).to(stay.dtype), chosen)


def _picked(seen: Seen, positions: Tensor) -> Tensor:
    rows = take(seen.directions.flatten(0, -2), positions, seen.tokens.count)
    return rows.view(*positions.shape, -1)


def _macs(layer: LayerShape) -> int:
    return layer.num_prop * (layer.tokens - layer.num_prop) * sketch_size(layer.model.dim)


GRAPHS.add(Graph("Nearest", "the most similar kept token, found in the layer", nearest, one_receiver=True, macs=_macs))
