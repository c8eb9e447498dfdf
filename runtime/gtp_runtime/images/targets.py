"""The truth of each pixel: masks of classes and depths, in a folder beside that of the images.

The truth of ``rooms/3.jpg`` is ``rooms/3.png`` (or ``.npy``) below its own folder, of the same picture and aspect.

- Masks: grey or palette PNG whose values are class ids from 0. An id that the model does not have (255) is left out.
- Depths: ``.npy`` of (rows, columns) floats, or PNG of 8 or 16 bits. 0 and what is not finite is not known.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from gtp_runtime.errors import ImageError, InputError
from gtp_runtime.images.decoding import LARGEST, LARGEST_FILE
from gtp_runtime.images.folders import ImageSet
from gtp_runtime.images.preprocessing import Preprocessing
from gtp_runtime.messages import one_line
from gtp_runtime.opening import open_regular

Kind = Literal["masks", "depths"]
SUFFIXES: dict[Kind, tuple[str, ...]] = {"masks": (".png",), "depths": (".npy", ".png")}
MISSING: dict[Kind, float] = {"masks": -1.0, "depths": 0.0}  # where nothing is known
MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")  # of Pillow: one number a pixel


@dataclass(frozen=True)
class Targets:
    """Where the truth of images lies, and what it is: "masks" or "depths"."""

    folder: Path
    kind: Kind

    def check(self, images: ImageSet) -> None:
        """Check that every image has one.

        Raises:
            InputError: names the first that has none.
        """
        for index in range(len(images)):
            if self._path(images.name(index)) is None:
                raise InputError(
                    f"{self.folder} has no {' or '.join(SUFFIXES[self.kind])} for {one_line(images.name(index))}: "
                    f"--{self.kind} DIR needs one of the same name for every image of --data"
                )

    def stamp(self, images: ImageSet) -> str:
        """Return a text that changes where a file does: the number of bytes of all, and the time of the newest."""
        found = [os.stat(path) for path in map(self._path, map(images.name, range(len(images)))) if path is not None]
        return f"{sum(entry.st_size for entry in found)} {max((int(entry.st_mtime) for entry in found), default=0)}"

    def read(self, name: str, preprocessing: Preprocessing) -> np.ndarray:
        """Return what is known of an image, (H, W) float32 over the pixels that the model sees.

        Raises:
            ImageError: it cannot be read, or says nothing of any pixel.
        """
        path = self._path(name)
        if path is None:
            raise ImageError(f"no {self.kind} of {one_line(name)} in {self.folder}")
        try:
            values = _array(path) if path.suffix == ".npy" else _picture(path)
        except Exception as error:  # Pillow's readers have exceptions of their own
            reason = one_line(getattr(error, "strerror", None) or error)
            raise ImageError(f"cannot read {path}: {reason}") from error
        aligned = preprocessing.aligned(values, MISSING[self.kind])
        if self.kind == "depths" and not (np.isfinite(aligned) & (aligned > 0)).any():
            raise ImageError(f"{path} has no depth above 0 where the model looks")
        return aligned

    def _path(self, name: str) -> Path | None:
        stem = os.path.splitext(name)[0]
        paths = (self.folder / f"{stem}{suffix}" for suffix in SUFFIXES[self.kind])
        return next((path for path in paths if path.exists()), None)


def _array(path: Path) -> np.ndarray:
    with open_regular(path, LARGEST_FILE) as file:
        values: np.ndarray = np.load(file, allow_pickle=False)
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not 0 < values.size <= LARGEST:
        raise ValueError(f"it holds {values.shape} {values.dtype}, not (rows, columns) numbers")
    return values


def _picture(path: Path) -> np.ndarray:
    with open_regular(path, LARGEST_FILE) as file, Image.open(file, formats=("PNG",)) as picture:
        if picture.mode not in MODES or picture.width * picture.height > LARGEST:
            size = f"{picture.width} x {picture.height}"
            raise ValueError(f"it has {size} pixels of mode {picture.mode}, not one number each")
        return np.asarray(picture).astype(np.float32)
