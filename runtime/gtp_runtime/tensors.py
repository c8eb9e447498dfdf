"""Whether the tensors that an engine found in a file are those that the manifest says."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest import FileEntry

Tensor = tuple[str, list[Any], str]  # name, shape, numpy dtype name


def check_tensors(path: Path, inputs: Iterable[Tensor], outputs: Iterable[Tensor], entry: FileEntry) -> None:
    """Check names, shapes and dtypes; their order does not count, for each is looked up by its name.

    Args:
        path: the file, for the message.
        inputs, outputs: what the engine found; TensorRT's inputs and outputs may come together as ``inputs``.
        entry: what the manifest says.

    Raises:
        ManifestError: they differ; names what does.
    """
    found = {name: (shape, dtype) for name, shape, dtype in (*inputs, *outputs)}
    stated = {spec.name: (spec.shape, spec.dtype) for spec in (*entry.inputs, *entry.outputs)}
    for name in dict.fromkeys((*found, *stated)):
        if found.get(name) != stated.get(name):
            raise ManifestError(
                f"{path} has {_described(name, found)}, its manifest says {_described(name, stated)}: export again"
            )


def _described(name: str, tensors: dict[str, tuple[list[Any], str]]) -> str:
    if name not in tensors:
        return f"no tensor {name!r:.60}"
    shape, dtype = tensors[name]
    return f"{name!r:.60} {tuple(shape)} {dtype}"
