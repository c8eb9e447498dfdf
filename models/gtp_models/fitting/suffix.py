"""Runs a method's schedules on the same images, each from the dense model's state before its first step.

So a schedule costs only the layers from its first step on.
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
MEMORY = 1 << 29  # bytes: of the states that are kept
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
        self._stored: list[dict[int, Tokens]] = [{} for _ in self.chunks]  # by layer: the dense states before it

    def __enter__(self) -> "SuffixRunner":
        install(self.model, self._make)
        self.model.blocks.restore = self._restore
        return self

    def __exit__(self, *_: object) -> None:
        remove(self.model)

    @torch.inference_mode()
    def dense(self, chunk: int) -> Tensor:
        """Return the dense model's output for a chunk, and store its states, from which schedules start."""
        blocks = self.model.blocks
        blocks.num_prop, blocks.keep, blocks.start = (0,) * self.depth, self._keep, None
        outputs = self.forward(self.chunks[chunk])
        self._stored[chunk] = blocks.kept
        return outputs

    @torch.inference_mode()
    def run(self, num_prop: Amounts, chunk: int) -> Tensor:
        """Return the output of a schedule for the images of a chunk."""
        blocks, first = self.model.blocks, next((layer for layer, amount in enumerate(num_prop) if amount), self.depth)
        last = max((layer for layer in self._stored[chunk] if layer <= first), default=None)
        blocks.num_prop, blocks.keep = num_prop, ()
        blocks.start = None if last is None else (last, self._stored[chunk][last])
        return self.forward(self.chunks[chunk])
