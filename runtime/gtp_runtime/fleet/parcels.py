"""Sends files of artifact directories to nodes, where each copy is checked against the same manifest."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from gtp_runtime.manifest import REFERENCE_NAME, Manifest, read_checked, read_manifest, write_manifest

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Parcel:
    """A file of an artifact directory, with what it needs.

    Attributes:
        name: of the file.
        manifest: of its directory.
        files: content of the files, by name.
    """

    name: str
    manifest: Manifest
    files: dict[str, bytes]


def pack(file: Path, manifest: Manifest | None = None) -> Parcel:
    """Pack a file, its weights, and the images of its reference, which are timed. It need not run on this machine.

    Args:
        file: a file of an artifact directory.
        manifest: what the files must be; None reads the one beside the file.

    Raises:
        ManifestError: no manifest, or a file is not what it says.
    """
    manifest = manifest or read_manifest(file.parent)
    needed = [file.name, manifest.entry(file.name).external_data or file.name]
    pictures = [REFERENCE_NAME] if REFERENCE_NAME in manifest.files else []
    files = {name: read_checked(file.parent / name, manifest.entry(name)) for name in (*needed, *pictures)}
    return Parcel(file.name, manifest, files)


@contextmanager
def unpacked(parcel: Parcel) -> Iterator[Path]:
    """Yield the file of a parcel, in a temporary folder that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="gtp-export-") as place:
        for name, content in parcel.files.items():
            (Path(place) / name).write_bytes(content)
        write_manifest(parcel.manifest, Path(place))
        yield Path(place) / parcel.name


@runtime_checkable
class WithFiles(Protocol):
    """A dataclass whose ``files`` are files of artifact directories."""

    files: tuple[Path, ...]


@dataclass(frozen=True)
class Sent(Generic[T, R]):
    """A function, and an item that is sent with its ``files``."""

    function: Callable[[T], R]
    item: T
    parcels: list[Parcel]


def send(function: Callable[[T], R], item: T) -> "Sent[T, R]":
    """Pack an item, with its files if it has any. Raises as ``pack`` does."""
    return Sent(function, item, [pack(file) for file in item.files] if isinstance(item, WithFiles) else [])


def call_sent(sent: "Sent[Any, R]") -> R:
    """Call the function of what was sent; the item's ``files`` are copies, which are removed at the end."""
    if not sent.parcels:
        return sent.function(sent.item)
    with ExitStack() as stack:
        files = tuple(stack.enter_context(unpacked(parcel)) for parcel in sent.parcels)
        return sent.function(replace(sent.item, files=files))
