"""The images of a search: those that it sees, in an order that mixes the classes, and those that are held out."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from gtp_runtime.errors import ImageError
from gtp_runtime.images.folders import ImageSet

HELD_OUT = 3  # one in so many images is held out
MORE = 2  # times as many as the search sees are held out at most, where it sees a part
FEWEST = 12  # images
SHARD = 32  # images of a part


@dataclass(frozen=True)
class Shard:
    """A part of the images; hashable, and small enough to be sent to where the images are.

    Attributes:
        folder: where they are.
        names: as ``images.image_names`` returns them.
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
    """Images that the search sees, in the order in which it takes them, and images that it never sees."""

    search: ImageSet
    held_out: ImageSet

    def shards(self, start: int, stop: int) -> list[Shard]:
        """Return the search's images from ``start`` to before ``stop``, always cut in the same places."""
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
        limit: how many images the search sees at most; ``MORE`` times as many are held out at most.
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
