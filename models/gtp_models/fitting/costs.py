"""What a schedule costs. By default its MACs; with a device's times by token count, its time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gtp_models.methods.settings import ModelShape, Settings
from gtp_models.plan import token_counts


@dataclass(frozen=True)
class TimeCosts:
    """Seconds of a schedule on a device: ``keep`` is then a share of the dense model's time.

    Attributes:
        settings: of the method.
        shape: the properties of the model.
        block: from the number of tokens (prefix included) to the seconds of a dense block.
        step: from the tokens in a layer that reduces and how many leave to the seconds of selecting and merging.
        rest: seconds of the patch embedding and the head.
    """

    settings: Settings
    shape: ModelShape
    block: Callable[[int], float]
    step: Callable[[int, int], float] = lambda tokens, amount: 0.0
    rest: float = 0.0

    @property
    def dense(self) -> float:
        """Seconds of the dense model."""
        return self.rest + self.shape.depth * self.block(self.shape.patches + self.shape.num_prefix)

    def backbone(self, num_prop: Sequence[int]) -> float:
        """Return the seconds of a schedule: half of a block sees the tokens before its step, half those after it.

        Raises:
            ConfigError: more tokens leave than there are.
        """
        counts = token_counts(self.settings, self.shape, num_prop)
        blocks = sum((self.block(before) + self.block(after)) / 2 for before, after in pairwise(counts))
        steps = zip(counts[:-1], num_prop, strict=True)
        return self.rest + blocks + sum(self.step(count, amount) for count, amount in steps if amount)
