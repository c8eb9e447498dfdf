"""ATC, "Agglomerative Token Clustering" (arXiv 2409.11923), from its description.

In each layer the image tokens are clustered bottom up by the cosine distance of their keys, with average linkage, until
as many clusters are left as tokens are to stay. A cluster becomes its size-weighted mean, in the place of its first
token.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from baselines.merging import merge, unit
from gtp_models import METHODS, ConfigError, Plan, Settings
from gtp_models.frame.attention import AttentionOutput
from gtp_models.frame.blocks import ReducingBlocks
from gtp_models.frame.families.forms import Blocks
from gtp_models.frame.tokens import Tokens
from gtp_models.frame.trace import Layer
from gtp_models.methods import Method
from gtp_models.methods.settings import LayerShape

MEASURES = ("keys", "tokens")


@dataclass(frozen=True)
class ATCSettings(Settings):
    """How many tokens merge where, and what says how near they are.

    Attributes:
        measure: "keys", the mean of the heads' keys as in the paper, or "tokens", the tokens themselves.
    """

    measure: str = "keys"

    name: ClassVar[str] = "atc"
    summary: ClassVar[str] = "agglomerative token clustering (baseline: ATC, arXiv 2409.11923)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.measure not in MEASURES:
            raise ConfigError(f"measure={self.measure!r} is unknown: choose one of {', '.join(MEASURES)}")

    def layer_macs(self, layer: LayerShape) -> int:
        dim = layer.model.head_dim if self.measure == "keys" else layer.model.dim
        return (layer.tokens - layer.model.num_prefix) ** 2 * dim


class ATCBlocks(ReducingBlocks):
    """Modifications: clusters of tokens merge, with proportional attention."""

    merges = True

    def __init__(self, blocks: Blocks, num_prop: tuple[int, ...], num_prefix: int, measure: str) -> None:
        super().__init__(blocks, num_prop, num_prefix)
        self.measure = measure

    def reduce(self, tokens: Tokens, attention: AttentionOutput, amount: int) -> Layer:
        values = attention.key.mean(-3) if self.measure == "keys" else tokens.x
        vectors = unit(values.reshape(tokens.batch, tokens.count, -1)[:, tokens.num_prefix :].double())
        distances = (1 - vectors @ vectors.mT).clamp(min=0)
        first = torch.from_numpy(np.stack([clusters(image.numpy(), amount) for image in distances.cpu()]))
        prefix = torch.arange(tokens.num_prefix).repeat(tokens.batch, 1)
        into: Tensor = torch.cat([prefix, first + tokens.num_prefix], 1)
        return merge(tokens, into.to(tokens.x.device))


def clusters(distances: np.ndarray, amount: int) -> np.ndarray:
    """Join the nearest clusters ``amount`` times by average linkage.

    Args:
        distances: (N, N), symmetric.
        amount: below N.

    Returns:
        (N,) int64: the first token of each token's cluster.
    """
    count = len(distances)
    members = {token: [token] for token in range(count)}
    joined = linkage(squareform(distances, checks=False), "average")[:amount, :2].astype(int)
    for number, (left, right) in enumerate(joined.tolist(), count):
        members[number] = members.pop(left) + members.pop(right)
    first = np.empty(count, np.int64)
    for cluster in members.values():
        first[cluster] = min(cluster)
    return first


def _blocks(blocks: Blocks, plan: Plan) -> ATCBlocks:
    assert isinstance(plan.settings, ATCSettings)
    return ATCBlocks(blocks, plan.num_prop, plan.shape.num_prefix, plan.settings.measure)


METHODS.add(Method(ATCSettings, _blocks))
