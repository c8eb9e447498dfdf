"""The images that ranges are measured on, and those that the result is judged on: never the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gtp_exporters.errors import LimitError
from gtp_runtime.errors import ImageError
from gtp_runtime.images.class_folders import folder_words
from gtp_runtime.images.folders import find_images, spread
from gtp_runtime.images.labels import find_image_set
from gtp_runtime.manifest import FileEntry, Manifest
from gtp_runtime.messages import one_line
from gtp_runtime.reference import Reference

FEWEST = 16  # images to measure ranges on
FEWEST_JUDGES = 32  # images to judge on; fewer say too little of agreement
MOST_JUDGES = 1024
PROBES = 8  # calibration images that the loss of each layer is measured on
TRIALS = 64  # calibration images that say how many layers stay float32
HELD_OUT = 4  # one in so many images is held out to judge on where nothing else is there
SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Judges:
    """Images that calibration never saw: (N, H, W, 3) uint8 pixels, (N,) classes where known, ``origin`` in words."""

    pixels: np.ndarray
    labels: np.ndarray | None
    origin: str

    def sample(self, count: int) -> "Judges":
        """Return so many of them, evenly spaced; all where there are no more."""
        places = spread(range(len(self.pixels)), count)
        return Judges(self.pixels[places], None if self.labels is None else self.labels[places], self.origin)


def choose(
    manifest: Manifest,
    reference: Reference,
    folder: Path,
    size: int,
    data: Path | None,
    class_order: str | None = None,
) -> tuple[list[Path], Judges]:
    """Return the files to calibrate on and the images to judge on.

    The judges are those of ``data``, else those of the parity pack, else, where these are synthetic or few, a part of
    ``folder`` that is held out.

    Args:
        manifest: of the artifact directory.
        reference: its parity pack.
        folder: images of the kind that the model will see.
        size: how many of them to calibrate on, at most, spread over the folder.
        data: a folder to judge on, one sub-folder a class where classes are known.
        class_order: "timm" or "torchvision", of these sub-folders; None is the manifest's, else timm's.

    Raises:
        ImageError: too few images, or one that cannot be read.
        LimitError: a ``class_order`` and no folders that are judged on.
    """
    paths = find_images(folder)
    if data is not None:
        used = spread(paths, size)
        _check(used, folder)
        return used, _of_files(
            manifest, data, _unseen(find_images(data), used), f"from {one_line(data.name)}", class_order
        )
    if manifest.reference.get("images") != SYNTHETIC and len(reference.images) >= FEWEST_JUDGES:
        if class_order is not None:
            raise LimitError("class_order has no effect on the parity pack, which judges here: give --data DIR as well")
        candidates = spread(paths, size + len(reference.images))
        apart = _apart(manifest, candidates, reference)
        _check(apart[:size], folder, shared=len(candidates) - len(apart))
        return apart[:size], Judges(reference.images, reference.labels, str(manifest.reference.get("images")))
    rest, held = held_out(paths)
    if len(held) < FEWEST_JUDGES:
        raise ImageError(
            f"{folder} has {len(paths)} images: {FEWEST_JUDGES * HELD_OUT} or more are needed, as one in {HELD_OUT} is "
            "held out to judge the result; or give other images for that with --data DIR"
        )
    used = spread(rest, size)
    _check(used, folder)
    return used, _of_files(manifest, folder, held, f"held out of {one_line(folder.name)}", class_order)


def batches(pixels: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield (size, H, W, 3) batches; the last one is filled up with the first images again."""
    for start in range(0, len(pixels), size):
        yield pixels[np.arange(start, start + size) % len(pixels)]


def prepared(pixels: np.ndarray, entry: FileEntry, manifest: Manifest) -> np.ndarray:
    """Turn (B, H, W, 3) uint8 pixels into the input of a graph."""
    return pixels if entry.inputs[0].dtype == "uint8" else manifest.preprocessing.normalise(pixels)


def check_distinct(digests: Sequence[bytes]) -> None:
    """Raise ``ImageError`` where most calibration images are the same, by the digests of their pixels."""
    if len(set(digests)) < min(FEWEST, len(digests)):
        raise ImageError(
            f"only {len(set(digests))} of {len(digests)} calibration images differ: give {FEWEST} or more others"
        )


def held_out(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the images to calibrate on, and the one in ``HELD_OUT`` to judge on."""
    rest = [path for place, path in enumerate(paths, 1) if place % HELD_OUT]
    return rest, list(paths[HELD_OUT - 1 :: HELD_OUT])


def _check(paths: Sequence[Path], folder: Path, shared: int = 0) -> None:
    """Raise ``ImageError`` where too few images are left; ``shared`` is how many the parity pack has as well."""
    if len(paths) >= FEWEST:
        return
    if shared:
        raise ImageError(
            f"{shared} of the {len(paths) + shared} images of {folder} are in the parity pack (export --data), which "
            f"judges int8, so {len(paths)} are left to calibrate on and {FEWEST} or more are needed: give others with "
            "--calib-data, or give gtp-export quantize others to judge on with --data DIR"
        )
    raise ImageError(
        f"{len(paths)} images of {folder} are too few to calibrate on: give {FEWEST} or more, better hundreds, "
        "of the kind that the model will see (--calib-data, --calib-size)"
    )


def _apart(manifest: Manifest, paths: Sequence[Path], reference: Reference) -> list[Path]:
    """Return the images that the reference does not hold, by their pixels."""
    judged = {image.tobytes() for image in reference.images}
    return [path for path in paths if manifest.preprocessing.pixels(path).tobytes() not in judged]


def _unseen(paths: Sequence[Path], used: Sequence[Path]) -> list[Path]:
    seen = {path.resolve() for path in used}
    unseen = [path for path in paths if path.resolve() not in seen]
    if len(unseen) < FEWEST_JUDGES:
        raise ImageError(
            f"--data has {len(unseen)} images that calibration does not see: give {FEWEST_JUDGES} or more others"
        )
    return unseen


def _of_files(manifest: Manifest, folder: Path, paths: list[Path], origin: str, class_order: str | None) -> Judges:
    """Read images to judge on. Raises ``ImageError`` where folders are not in the ``class_order`` that is given."""
    chosen = spread(paths, MOST_JUDGES)
    pixels = np.stack([manifest.preprocessing.pixels(path) for path in chosen])
    try:
        images = find_image_set(folder, manifest, class_order=class_order)
    except ImageError:  # the folders are no classes: there is still agreement to judge by
        if class_order is not None:
            raise
        return Judges(pixels, None, origin)
    if images.classes is None:
        return Judges(pixels, None, origin)
    classes = dict(zip(find_images(folder), images.classes.tolist(), strict=True))
    words = folder_words(images.class_order, images.class_folders) if images.class_folders else ""
    return Judges(
        pixels, np.array([classes[path] for path in chosen], np.int64), f"{origin}; {words}" if words else origin
    )


def some_of(manifest: Manifest, paths: Sequence[Path], count: int) -> np.ndarray:
    """Read so many images at most, (N, H, W, 3) uint8, spread over the files."""
    return read_pixels(manifest, spread(paths, count))


def read_pixels(manifest: Manifest, paths: Sequence[Path]) -> np.ndarray:
    """Read images, (N, H, W, 3) uint8, as the model sees them."""
    return np.stack([manifest.preprocessing.pixels(path) for path in paths])
