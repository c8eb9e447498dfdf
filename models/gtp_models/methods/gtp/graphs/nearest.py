"""Nearest: one edge, from each token that leaves to the most similar image token that stays, made in the layer."""

import torch

from gtp_models.methods.gtp.axes import GRAPHS, Edges, Graph, Parted, Seen
from gtp_models.methods.gtp.graphs.adjacency import pick


def nearest(seen: Seen, parted: Parted) -> Edges:
    """Mark each leaving token's receiver; of equally similar ones the first in the current order."""
    prefix = seen.tokens.num_prefix
    candidates = pick(seen.similarity, parted.leaving, parted.staying[..., prefix:])
    chosen = candidates.argmax(-1)
    places = torch.arange(-prefix, candidates.shape[-1], device=chosen.device)
    return Edges((chosen[..., None] == places).to(candidates.dtype), chosen + prefix)


GRAPHS.add(Graph("Nearest", "the most similar token that stays, in the layer", nearest, one_receiver=True))
