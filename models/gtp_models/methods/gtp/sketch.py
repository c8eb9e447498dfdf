"""Sketches: the directions of tokens in fewer numbers than channels, to compare tokens at less cost.

Comparing all pairs of tokens takes N x N x C products. A sketch sums groups of channels: it keeps cosines up to some
noise, at a negligible cost, for any model. Random signs, as in a count sketch (Charikar et al., ICALP 2002), do not
improve the selection. On a ViT of 128 channels (CIFAR-10, 2,000 test images of all classes, 0.611 of the MACs in two
steps) the divergence from the dense model is .0063 with all channels, .0070 with 64 numbers, .0068 with 32 and .0075
with 16, each with a standard error of .0003.
"""

from jaxtyping import Float
from torch import Tensor

EPS = 1e-24  # of a squared length: keeps the similarity of a zero vector finite
SKETCH = 64  # numbers that a token is compared by, at least


def sketch_size(dim: int) -> int:
    """Return the size of a sketch of ``dim`` channels: the smallest divisor that is at least ``SKETCH``."""
    return next((size for size in range(SKETCH, dim) if dim % size == 0), dim)


def directions(x: Float[Tensor, "*batch tokens dim"]) -> Float[Tensor, "*batch tokens sketch"]:
    """Sketch the tokens and give each the length 1; a zero vector stays zero.

    Channels that are a multiple of the sketch's size apart are added up: in memory, whole rows.
    """
    size = sketch_size(x.shape[-1])
    if size < x.shape[-1]:
        x = x.view(*x.shape[:-1], -1, size).sum(-2)
    return x * (x * x).sum(-1, keepdim=True).clamp(min=EPS).rsqrt()
