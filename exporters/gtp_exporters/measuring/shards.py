"""How judging is divided: images into rungs and shards, and jobs among whoever computes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from gtp_runtime import ImageSet
from gtp_runtime.errors import ImageError

FIRST, FACTOR = 64, 4  # images of the first rung, and how many times as many each next one has
HELD_OUT = 3  # one in so many images is held out
MORE = 2  # times as many as are judged on are held out at most, where that is a part
FEWEST = 12  # images
SHARD = 32  # images of a part
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Workers(Protocol):
    """Maps functions of a module over items, both of which can be pickled.

    Attributes:
        trials: how many candidates are worth being judged at a time.
    """

    trials: int

    def map(self, function: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[tuple[Item, Answer]]:
        """Yield each item with its answer, as answers come; the first exception is raised.

        Args:
            function: called once for each item, or again if the machine that did so is lost.
            items: taken as they are needed.
        """
        ...

    def on_device(self, function: Callable[[Item], Answer], item: Item) -> Answer:
        """Call a function where latency is measured, one call at a time, with nothing else running there."""
        ...


class Local:
    """Runs everything in this process, one after another."""

    trials = 1

    def map(self, function: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[tuple[Item, Answer]]:
        """Yield each item with its answer, in order."""
        for item in items:
            yield item, function(item)

    def on_device(self, function: Callable[[Item], Answer], item: Item) -> Answer:
        """Call a function."""
        return function(item)


@dataclass(frozen=True)
class Shard:
    """A part of the images; hashable, and small enough to be sent to where the images are.

    Attributes:
        folder: where they are.
        names: as ``image_names`` returns them.
        classes: of each image; None where they are unknown.
    """

    folder: Path
    names: tuple[bytes, ...]
    classes: tuple[int, ...] | None

    def images(self) -> ImageSet:
        """Return them as what ``gtp_runtime`` reads."""
        classes = None if self.classes is None else np.asarray(self.classes, np.int32)
        return ImageSet(self.folder, np.asarray(self.names), classes)


@dataclass(frozen=True)
class Split:
    """Images that candidates are judged on, in the order in which they are taken, and images that are held out."""

    search: ImageSet
    held_out: ImageSet

    def shards(self, start: int, stop: int) -> list[Shard]:
        """Return the former from ``start`` to before ``stop``, always cut in the same places."""
        edges = [start, *range((start // SHARD + 1) * SHARD, stop, SHARD), stop]
        return [self._shard(first, last) for first, last in pairwise(edges) if first < last]

    def _shard(self, start: int, stop: int) -> Shard:
        images = self.search
        classes = None if images.classes is None else tuple(int(number) for number in images.classes[start:stop])
        return Shard(images.folder, tuple(bytes(name) for name in images.names[start:stop]), classes)


def split(images: ImageSet, limit: int | None = None, seed: int = 0) -> Split:
    """Hold one in ``HELD_OUT`` images out and mix the rest. Both are spread over the classes.

    Args:
        images: in the order of their names, so that those of a class stand together.
        limit: how many images are judged on at most; ``MORE`` times as many are held out at most.
        seed: of the order.

    Raises:
        ImageError: fewer than ``FEWEST`` images.
    """
    if len(images) < FEWEST:
        raise ImageError(
            f"{images.folder} has {len(images)} images, and a search needs at least {FEWEST}: some to search on, and "
            "others to validate on"
        )
    places = np.arange(len(images))
    held_out, rest = places[::HELD_OUT], np.random.default_rng(seed).permutation(places[places % HELD_OUT != 0])
    kept = images.part(held_out)
    return Split(images.part(rest[:limit]), kept if limit is None else kept.spread(MORE * limit))


def rungs(images: int) -> list[int]:
    """Return how many images each rung ends at: 64, 256, 1024, ..., all."""
    ends, end = [], FIRST
    while end * FACTOR <= 2 * images:  # the last step is at least twice as many
        ends.append(end)
        end *= FACTOR
    return [*[end for end in ends if end < images], images]
