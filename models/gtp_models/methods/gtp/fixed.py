"""Fixed moves: which tokens leave and which receive them, as constants that were fitted on images.

For scenes that stand still, as before a camera that does not move: then the same patches are alike in every image. The
graph holds only constant gathers and products: no TopK, no ArgMax, no index that depends on the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gtp_models.errors import ConfigError
from gtp_models.frame.tokens import NEVER, Tokens
from gtp_models.methods.gtp.axes import Edges
from gtp_models.methods.settings import ModelShape

Move = tuple[int, int]  # the patch that leaves, and the patch that receives it
Moves = tuple[tuple[Move, ...], ...]  # of every layer


@dataclass(frozen=True)
class FixedStep:
    """The moves of a layer, as positions among its tokens, prefix tokens included.

    Attributes:
        staying, leaving: positions, ascending.
        receivers: of each that leaves, a position among those that stay.
    """

    staying: tuple[int, ...]
    leaving: tuple[int, ...]
    receivers: tuple[int, ...]

    def positions(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Return who stays and who leaves, (*batch, some) each."""
        return _constant(self.staying, tokens), _constant(self.leaving, tokens)

    def edges(self, tokens: Tokens) -> Edges:
        """Return one edge from each token that leaves to its receiver."""
        receivers = _constant(self.receivers, tokens)
        places = torch.arange(len(self.staying), device=tokens.x.device)
        return Edges((receivers[..., None] == places).to(tokens.x.dtype), receivers)


def _constant(positions: tuple[int, ...], tokens: Tokens) -> Tensor:
    return torch.tensor(positions, device=tokens.x.device).expand(*tokens.axes, -1)


def fixed_steps(moves: Moves, shape: ModelShape) -> dict[int, FixedStep]:
    """Return the steps of the layers that reduce, by the number of tokens before them: it falls with each step."""
    present, steps = list(range(shape.patches)), {}
    for layer in moves:
        if not layer:
            continue
        into = dict(layer)
        staying = [patch for patch in present if patch not in into]
        place = {patch: shape.num_prefix + index for index, patch in enumerate(staying)}
        leaving = [patch for patch in present if patch in into]
        steps[len(present) + shape.num_prefix] = FixedStep(
            (*range(shape.num_prefix), *(shape.num_prefix + present.index(patch) for patch in staying)),
            tuple(shape.num_prefix + present.index(patch) for patch in leaving),
            tuple(place[into[patch]] for patch in leaving),
        )
        present = staying
    return steps


def check_moves(moves: Moves, num_prop: Sequence[int], shape: ModelShape) -> None:
    """Check that moves fit a model and its amounts.

    Raises:
        ConfigError: another number of layers or of moves, a patch that is not there, or a receiver that leaves.
    """
    if [len(layer) for layer in moves] != list(num_prop):
        raise ConfigError(
            f"moves are for {[len(layer) for layer in moves]} tokens in the layers, but {list(num_prop)} leave: fit "
            "them again (leave moves out, and call gtp_export.calibrate, or export with --calib-data)"
        )
    present = set(range(shape.patches))
    for index, layer in enumerate(moves):
        staying = present - {left for left, _ in layer}
        fits = len(present) - len(staying) == len(layer) and all(into in staying for _, into in layer)
        if not fits:
            raise ConfigError(
                f"moves of layer {index} name a patch twice, or one that is not there: fit them again with "
                "gtp_export.calibrate"
            )
        present = staying


def fitted_moves(
    similarity: Float[Tensor, "patches patches"], sizes: Float[Tensor, " patches"], patches: Sequence[int], amount: int
) -> tuple[Move, ...]:
    """Choose moves by the mean similarity of a layer's image tokens over images, as the measured form does by an image.

    The tokens that are cheapest to regenerate from an earlier one leave: (1 - largest similarity to an earlier
    token) * size. Each goes to the most similar token that stays.

    Args:
        similarity: mean cosines.
        sizes: how many patches each token stands for.
        patches: original ids of the tokens, in order.
        amount: how many leave.
    """
    earlier = torch.ones_like(similarity).tril(-1).bool()
    cost = (1 - torch.where(earlier, similarity, NEVER).amax(-1)) * sizes
    order = cost[1:].sort(descending=True, stable=True).indices + 1  # the first has none before it, and stays
    leaving = order[len(order) - amount :].sort().values
    closeness = similarity[leaving].clone()
    closeness[:, leaving] = NEVER
    receivers = closeness.argmax(-1)
    return tuple(
        (patches[left], patches[into]) for left, into in zip(leaving.tolist(), receivers.tolist(), strict=True)
    )
