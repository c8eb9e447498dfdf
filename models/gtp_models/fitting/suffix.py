"""Runs a method's schedules on the same images, each from the last state that it shares with an earlier one.

Schedules that agree before layer L have the same states there. So a schedule costs only the layers from its first
difference on: from the dense model's states, or from those of a schedule that was kept.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtp_models.frame.blocks import ReducingBlocks
from gtp_models.frame.families.forms import Blocks
from gtp_models.frame.patch import install, remove
from gtp_models.frame.restore import Restore
from gtp_models.frame.tokens import Tokens
from gtp_models.methods import METHODS
from gtp_models.methods.settings import Settings
from gtp_models.plan import make_plan
from gtp_models.schedules import Amounts

Forward = Callable[[Tensor], Tensor]
MEMORY = 1 << 29  # bytes: of the states that are kept for one schedule
TOGETHER = 2048  # tokens that run together: their attention maps fit a CPU's caches
PARTS = 4  # chunks that images are split into, at least


class ResumingBlocks(ReducingBlocks):
    """Stands in for a method's blocks: starts from a stored state, and stores states on the way.

    Args:
        blocks: timm's.
        method: the method's blocks, over the same layers.
    """

    def __init__(self, blocks: Blocks, method: ReducingBlocks) -> None:
        super().__init__(blocks, [0] * len(blocks), method.num_prefix)
        self._method = [method]  # in a list: its layers are registered here already
        self.merges = method.merges
        self.start: tuple[int, Tokens] | None = None
        self.kept: dict[int, Tokens] = {}  # by layer: the states before them
        self.keep: Sequence[int] = ()

    def forward(self, x: Tensor, rope: Tensor | None = None) -> Tensor:
        """Run the layers behind the stored state with ``num_prop``, or all; store the states before ``keep``."""
        for behind in self._run(self.start or (0, self._embedded(x, rope))):
            last = behind
        return self.handed_over(*last)

    def states(self, x: Tensor, rope: Tensor | None = None) -> Iterator[tuple[Tensor, Tokens]]:
        """Run all layers: outputs of layers in front of the stored state are asked for as well."""
        return self._run((0, self._embedded(x, rope)))

    def _embedded(self, x: Tensor, rope: Tensor | None) -> Tokens:
        method = self._method[0]
        method.num_prop = (1,) * len(self)  # so that it prepares what reducing needs
        return method.embedded(x, rope)

    def _run(self, start: tuple[int, Tokens]) -> Iterator[tuple[Tensor, Tokens]]:
        """Run the layers behind a state; give the vectors and the state behind each."""
        method = self._method[0]
        method.num_prop, self.kept = self.num_prop, {}
        first, tokens = start
        for layer in range(first, len(self)):
            if layer in self.keep:
                self.kept[layer] = tokens
            tokens = method.run_block(layer, tokens).tokens
            yield tokens.x.view(tokens.batch, -1, tokens.x.shape[-1]), tokens


class SuffixRunner:
    """A patched model and its images, in chunks. A context: afterwards the model is not patched.

    Args:
        model: as for ``apply``.
        settings: of any method; the amounts that they ask for do not matter.
        images: preprocessed, (N, 3, H, W) float32.
        forward: from images to what is compared, by the model (default: the model itself).
        restore: put tokens back on the grid, as ``apply`` does with it.
    """

    def __init__(
        self,
        model: Any,
        settings: Settings,
        images: Float[Tensor, "n 3 height width"],
        forward: Forward | None = None,
        restore: bool = False,
    ) -> None:
        self.model, self.forward = model, forward or model
        plan = make_plan(model, settings.resolved((0,) * len(model.blocks)))
        self.depth, tokens = plan.shape.depth, plan.shape.patches + plan.shape.num_prefix
        self._make = lambda blocks: ResumingBlocks(blocks, METHODS[settings.name].blocks(blocks, plan))
        self.chunks = torch.split(images, max(1, min(TOGETHER // tokens, -(-len(images) // PARTS))))
        bytes_each = len(images) * tokens * plan.shape.dim * images.element_size()
        stride = -(-self.depth * bytes_each // MEMORY)
        self._restore = Restore(plan.shape.grid) if restore else None
        self._keep = range(0, self.depth, stride)
        self._stored: list[dict[Amounts, dict[int, Tokens]]] = [{} for _ in self.chunks]

    def __enter__(self) -> "SuffixRunner":
        install(self.model, self._make)
        self.model.blocks.restore = self._restore
        return self

    def __exit__(self, *_: object) -> None:
        remove(self.model)

    @torch.inference_mode()
    def run(self, num_prop: Amounts, chunk: int, *, keep: bool = False) -> Tensor:
        """Return the output of a schedule for the images of a chunk; ``keep`` stores its states for later ones."""
        blocks, stored = self.model.blocks, self._stored[chunk]
        blocks.num_prop, blocks.keep = num_prop, self._keep if keep else ()
        blocks.start, before = self._shared(num_prop, stored)
        outputs = self.forward(self.chunks[chunk])
        if keep:
            stored[num_prop] = before | blocks.kept
        return outputs

    def forget(self, num_prop: Amounts) -> None:
        """Drop the stored states of a schedule."""
        for stored in self._stored:
            stored.pop(num_prop, None)

    @staticmethod
    def _shared(
        num_prop: Amounts, stored: dict[Amounts, dict[int, Tokens]]
    ) -> tuple[tuple[int, Tokens] | None, dict[int, Tokens]]:
        """Return the last stored state that a schedule shares, with its layer, and all shared ones."""
        shared = [
            {layer: state for layer, state in states.items() if other[:layer] == num_prop[:layer]}
            for other, states in stored.items()
        ]
        best = max(shared, key=lambda states: max(states, default=-1), default={})
        return (max(best.items(), key=lambda item: item[0]) if best else None), best
