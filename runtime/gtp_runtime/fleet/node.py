"""What runs on a node, and what is sent to it.

A node checks that it has the same code and images, and makes a task's function once. Files of artifact directories are
sent as parcels; each copy is checked against the same manifest.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from gtp_runtime.errors import InputError
from gtp_runtime.images.folders import image_names
from gtp_runtime.manifest import REFERENCE_NAME, Manifest, read_checked, read_manifest, write_manifest

T = TypeVar("T")
R = TypeVar("R")
Function = Callable[[Any], Any]
PACKAGES = ("gtp_runtime", "gtp_models", "gtp_exporters")  # whose functions nodes call; a board has the first alone


@dataclass(frozen=True)
class Needs:
    """What a node must have.

    Attributes:
        code: the ``code_digests`` of the process that asks.
        images: a folder that must be on the node, and its ``names_digest``; None asks for none.
    """

    code: Mapping[str, str]
    images: tuple[str, str] | None = None

    def check(self) -> None:
        """Check every package that both have, and the images.

        Raises:
            ImageError: the folder is not there.
            InputError: this node has another gtp-export, or other images.
        """
        own = code_digests()
        other = [name for name in own if own[name] != self.code.get(name, own[name])]
        if other:
            raise InputError(f"its {', '.join(other)} is another one: install the same gtp-export on every node")
        if self.images is not None and names_digest(self.images[0]) != self.images[1]:
            raise InputError(
                f"{self.images[0]} holds other images than where the command runs: copy the same there, or mount it"
            )


class Worker:
    """The function of the latest task in a node's process, with all that it holds."""

    def __init__(self) -> None:
        self._needs: Needs | None = None
        self._task = ""
        self._function: Function | None = None

    def function(self, needs: Needs, task: str, fetch: Callable[[], Callable[[], Function]]) -> Function:
        """Return the function of a task; what ``fetch`` returns makes it, once. Raises as ``Needs.check`` and these."""
        if needs != self._needs:
            needs.check()
            self._needs = needs
        if self._function is None or task != self._task:
            self._function = None  # the earlier one's memory is free first
            self._function, self._task = fetch()(), task
        return self._function


WORKER = Worker()


@cache
def code_digests() -> dict[str, str]:
    """Return hashes of the source code of our packages, which decides what is answered, by name; hexadecimal digits."""
    specs = {name: find_spec(name) for name in PACKAGES}
    return {name: _digest(Path(spec.origin).parent) for name, spec in specs.items() if spec and spec.origin}


def _digest(home: Path) -> str:
    digest = hashlib.sha256()
    archive = next((place for place in home.parents if place.is_file()), None)  # of a zip application
    if archive is not None:
        digest.update(archive.read_bytes())
    for path in sorted(home.rglob("*.py")):
        digest.update(path.relative_to(home).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def names_digest(folder: str) -> str:
    """Return a hash of the names of the images below a folder; hexadecimal digits. Raises as ``image_names`` does."""
    digest = hashlib.sha256()
    for name in image_names(folder):
        digest.update(name + b"\n")
    return digest.hexdigest()


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
