"""Sends files to nodes: each node loads its own copy, checked against the same manifest."""

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gtp_runtime.errors import RandomWeightsWarning
from gtp_runtime.loading import load
from gtp_runtime.manifest import REFERENCE_NAME, Manifest, read_checked, read_manifest, write_manifest
from gtp_runtime.model import Model


@dataclass(frozen=True)
class Parcel:
    """A file of an artifact directory, with what it needs.

    Attributes:
        name: of the file.
        manifest: of its directory.
        files: content of the files, by name.
        backend: what runs it: a backend's name, or "auto".
        options: of the backend.
    """

    name: str
    manifest: Manifest
    files: dict[str, bytes]
    backend: str
    options: Mapping[str, Any]


def pack(
    file: Path, backend: str = "auto", options: Mapping[str, Any] | None = None, manifest: Manifest | None = None
) -> Parcel:
    """Pack a file, its weights, and the images of its reference, which are timed. It need not run on this machine.

    Args:
        file: a file of an artifact directory.
        backend, options: as ``load`` takes them on the node.
        manifest: what the files must be; None reads the one beside the file.

    Raises:
        ManifestError: no manifest, or a file is not what it says.
    """
    manifest = manifest or read_manifest(file.parent)
    names = [file.name, manifest.entry(file.name).external_data, REFERENCE_NAME]
    there = [name for name in names if name and (name != REFERENCE_NAME or name in manifest.files)]
    files = {name: read_checked(file.parent / name, manifest.entry(name)) for name in there}
    return Parcel(file.name, manifest, files, backend, dict(options or {}))


def pack_model(model: Model) -> Parcel:
    """Pack a loaded file, to be run on the node as it is run here. Raises as ``pack`` does."""
    return pack(model.path, model.backend.name, asdict(model.options), model.manifest)


@contextmanager
def unpacked(parcel: Parcel) -> Iterator[Model]:
    """Yield the file of a parcel, loaded from a temporary folder that is removed at the end.

    The file stays loaded: without its folder it runs, but has no reference.

    Raises:
        InputError: options that this node refuses, as more threads than it has cores.
        BackendMissingError, EngineMismatchError, DeviceError: this node cannot run it.
    """
    with tempfile.TemporaryDirectory(prefix="gtp-export-") as place:
        for name, content in parcel.files.items():
            (Path(place) / name).write_bytes(content)
        write_manifest(parcel.manifest, Path(place))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RandomWeightsWarning)  # whoever sent it was warned
            model = load(Path(place) / parcel.name, parcel.backend, **parcel.options)
        yield model
