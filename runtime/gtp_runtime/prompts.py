"""Text embeddings: they make classes of the features of a model that was trained on images with texts (zero-shot)."""

import hashlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from gtp_runtime.errors import InputError
from gtp_runtime.messages import one_line
from gtp_runtime.neighbours import unit
from gtp_runtime.reference import UNREADABLE, load_arrays

SCALE = 100.0  # of cosines with text embeddings, as CLIP is trained with


@dataclass(frozen=True)
class Prompts:
    """Text embeddings that make classes of features: (C, dim) float32 of length 1, their names, the scale of logits."""

    embeddings: np.ndarray
    names: tuple[str, ...]
    scale: float = SCALE

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return the (N, C) logits of (N, dim) features.

        Raises:
            InputError: features of another length.
        """
        if features.ndim != 2 or features.shape[1] != self.embeddings.shape[1]:
            raise InputError(
                f"text embeddings of {self.embeddings.shape[1]} values are not of this model, whose features have "
                f"{features.shape[1:]}: give those of its own text tower"
            )
        return np.asarray(self.scale * (unit(features) @ self.embeddings.T))

    @property
    def digest(self) -> str:
        """A hash of all; hexadecimal digits."""
        words = "\0".join((*self.names, str(self.scale))).encode()
        return hashlib.sha256(self.embeddings.tobytes() + words).hexdigest()


def read_prompts(path: str | PathLike[str]) -> Prompts:
    """Read text embeddings: an .npz file with ``embeddings`` (C, dim) floats and ``names`` (C,), and perhaps ``scale``.

    Raises:
        InputError: missing, damaged, or without these arrays.
    """
    try:
        arrays = load_arrays(Path(path))
    except UNREADABLE as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        raise InputError(f"cannot read the text embeddings {path}: {reason}") from error
    embeddings, names = arrays.get("embeddings"), arrays.get("names")
    if embeddings is None or names is None or not _fit(embeddings, names):
        held = one_line(", ".join(arrays) or "nothing")
        raise InputError(
            f"{path} holds {held}: give embeddings (classes, dim) of finite floats, and names (classes,) of text, for "
            "two classes or more"
        )
    scale = float(np.asarray(arrays.get("scale", SCALE)).reshape(-1)[0])
    return Prompts(unit(embeddings), tuple(map(str, names)), scale)


def _fit(embeddings: np.ndarray, names: np.ndarray) -> bool:
    is_matrix = embeddings.ndim == 2 and embeddings.dtype.kind == "f" and bool(np.isfinite(embeddings).all())
    return is_matrix and names.dtype.kind == "U" and names.shape == embeddings.shape[:1] and len(names) > 1
