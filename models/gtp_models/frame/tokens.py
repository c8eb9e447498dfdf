"""The tokens between two blocks, and how they are reordered."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

HIGHEST = 60000.0  # above every score, and within float16
NEVER = -4.0  # less than any cosine


@dataclass(frozen=True)
class Departed:
    """The tokens that left in one layer.

    Attributes:
        ids: as in ``Tokens.ids``.
        receivers: ids of the tokens that they were merged into; None without a single receiver.
    """

    ids: Int[Tensor, "*batch left"]
    receivers: Int[Tensor, "*batch left"] | None = None


@dataclass(frozen=True)
class Tokens:
    """The state that is passed from block to block. ``*batch`` is (B,), or nothing for a batch of one.

    Attributes:
        x: token vectors, the images concatenated along the rows.
        batch: number of images B.
        num_prefix: prefix tokens at the front of each image, which never leave.
        ids: position of each token in the embedded sequence; None until the first token leaves. A token that a
            method adds has ``num_prefix - 1``: minus ``num_prefix``, that is -1.
        scale: weight of each token as a key; None if every token has the weight 1.
        setup: what the method computed before the first block (a token graph), or None.
        rope: rotary embeddings of all positions, from ``rotary.rope_table``, or None.
        departed: those that left so far, layer by layer.
    """

    x: Float[Tensor, "rows dim"]
    batch: int
    num_prefix: int
    ids: Int[Tensor, "*batch tokens"] | None = None
    scale: Float[Tensor, "*batch 1 tokens"] | None = None
    setup: Float[Tensor, "*any all all"] | None = None
    rope: Float[Tensor, "2 *layer places heads head_dim"] | None = None
    departed: tuple[Departed, ...] = ()

    @property
    def count(self) -> int:
        """Tokens of one image, prefix tokens included."""
        return self.x.shape[0] // self.batch

    @property
    def axes(self) -> tuple[int, ...]:
        """The leading axes of a value for each image: (B,), or none for a batch of one."""
        return (self.batch,) if self.batch > 1 else ()

    def rows(self) -> Float[Tensor, "*batch tokens dim"]:
        """Return the token vectors, image by image."""
        return self.x.view(*self.axes, self.count, -1)

    def positions(self) -> Int[Tensor, "*batch tokens"]:
        """Return the ids before any token has left: the positions."""
        return torch.arange(self.count, device=self.x.device).expand(*self.axes, -1)

    def scaled(self) -> "Tokens":
        """Return the tokens with a scale; it is 1 if they had none."""
        if self.scale is not None:
            return self
        return replace(self, scale=self.x.new_ones(*self.axes, 1, self.count))

    def sizes(self) -> Float[Tensor, "batch tokens"] | None:
        """Return the scales of every image's tokens; None if all are 1."""
        return None if self.scale is None else self.scale.reshape(self.batch, -1)

    def pick(self, positions: Int[Tensor, "*batch some"]) -> "Tokens":
        """Return the tokens at these positions of each image, with their ids and scales."""
        return replace(
            self,
            x=take(self.x, positions, self.count),
            ids=positions if self.ids is None else take_ids(self.ids, positions),
            scale=None if self.scale is None else take_last(self.scale, positions),
        )

    def image_ids(self) -> Int[Tensor, "batch image_tokens"]:
        """Original ids of the image tokens in current order; 0 is the first patch."""
        ids = self.positions() if self.ids is None else self.ids
        return ids.reshape(self.batch, -1)[:, self.num_prefix :] - self.num_prefix


def take(
    values: Float[Tensor, "rows dim"], positions: Int[Tensor, "*batch some"], tokens: int
) -> Float[Tensor, "picked dim"]:
    """Pick rows of each image: one gather of whole rows, for one image or several."""
    return values.index_select(0, flat(positions, tokens))


def take_last(
    values: Float[Tensor, "*batch 1 tokens"], positions: Int[Tensor, "*batch some"]
) -> Float[Tensor, "*batch 1 some"]:
    """Pick entries of each image's last axis."""
    if positions.ndim == 1:
        return values.index_select(1, positions)
    picked = values.flatten().index_select(0, flat(positions, values.shape[-1]))
    return picked.view(*positions.shape[:-1], 1, positions.shape[-1])


def take_ids(ids: Int[Tensor, "*batch tokens"], positions: Int[Tensor, "*batch some"]) -> Int[Tensor, "*batch some"]:
    """Pick each image's ids."""
    return ids.flatten().index_select(0, flat(positions, ids.shape[-1])).view(positions.shape)


def flat(positions: Int[Tensor, "*batch some"], tokens: int) -> Int[Tensor, " picked"]:
    """Turn positions within an image into rows of the flattened batch."""
    if positions.ndim == 1:
        return positions
    images = torch.arange(len(positions), device=positions.device)[:, None] * tokens
    return (positions + images).flatten()


def add_product(
    base: Float[Tensor, "*#batch #m #n"], left: Float[Tensor, "*batch m k"], right: Float[Tensor, "*batch k n"]
) -> Float[Tensor, "*batch m n"]:
    """Return ``base + left @ right``, as one node (Gemm) for one image."""
    return torch.addmm(base, left, right) if left.ndim == 2 else base + left @ right


def rank(values: Float[Tensor, "*batch tokens"], num_prefix: int) -> tuple[Tensor, Int[Tensor, "*batch tokens"]]:
    """Sort tokens by descending score, prefix tokens first; a tie keeps the current order.

    Returns:
        The sorted scores (*batch, tokens) and the current positions in that order.
    """
    if num_prefix:
        front = [HIGHEST * (num_prefix - i) / num_prefix for i in range(num_prefix)]
        bonus = front + [0.0] * (values.shape[-1] - num_prefix)
        values = values + torch.tensor(bonus, dtype=values.dtype, device=values.device)
    ordered = values.sort(dim=-1, descending=True, stable=True)
    return ordered.values, ordered.indices
