"""The files of an artifact directory: whether they are what the manifest says, and which one is whose dense twin."""

import hashlib
import logging
from pathlib import Path

from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest.reading import is_plain, read_manifest
from gtp_runtime.manifest.schema import FileEntry, Manifest

log = logging.getLogger(__name__)


def file_sha256(path: Path) -> str:
    """Hash a file; hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def bytes_sha256(content: bytes) -> str:
    """Hash the content of a file; hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def check_file(path: Path, manifest: Manifest) -> None:
    """Check that a file is what the manifest says, and the file beside it that holds its weights likewise.

    Raises:
        ManifestError: it is missing, not listed, or its sha256 differs; its weights are not a regular file beside it;
            it is an engine, and the manifest lists another graph than the one that it was built from.
    """
    entry = manifest.entry(path.name)
    _check_hash(path, entry)
    if entry.engine is not None and entry.engine.onnx in manifest.files:  # the graph itself need not be there
        graph = entry.engine.onnx
        if manifest.files[graph].sha256 != entry.engine.onnx_sha256:
            raise ManifestError(
                f"{path} was built from another {graph} than its manifest lists: gtp-export build-engine builds again"
            )
    name = entry.external_data
    if name is None:
        return
    data = path.parent / name
    if not is_plain(name) or manifest.entry(name).role != "data":
        raise ManifestError(f"{path.name} keeps its weights in {name!r}, which is not its data file: export again")
    if data.is_symlink() or (data.exists() and not data.is_file()):
        raise ManifestError(f"{data} contains weights and must be a regular file, not a link or folder: copy it there")
    _check_hash(data, manifest.entry(name))


def _check_hash(path: Path, entry: FileEntry) -> None:
    if not path.is_file():
        raise ManifestError(f"no file {path}, though the manifest lists it: copy it there, or export again")
    if file_sha256(path) != entry.sha256:
        raise ManifestError(f"{path} is not the file that its manifest describes (sha256 differs): export again")


def twin(path: Path) -> Path | None:
    """Return the dense twin of a file: the unpatched model with the same batch, in the same form where there is one.

    ``model.engine`` goes with ``dense.engine``, else with ``dense.onnx``. A dense file has no twin.

    Args:
        path: a file of an artifact directory, or the directory, which means ``model.onnx``.

    Raises:
        ManifestError: no manifest beside the file, or one that does not list it.
    """
    file = path / "model.onnx" if path.is_dir() else path
    manifest = read_manifest(file.parent)
    entry = manifest.entry(file.name)
    if entry.role == "dense":
        return None
    names = [name for name, other in manifest.files.items() if other.role == "dense" and _batch(other) == _batch(entry)]
    names.sort(key=lambda name: (Path(name).suffix != file.suffix, Path(name).suffix != ".onnx", name))
    there = [file.parent / name for name in names if (file.parent / name).is_file()]
    log.info("dense twin of %s: %s", file, there[0] if there else f"none (listed: {', '.join(names) or 'none'})")
    return there[0] if there else None


def _batch(entry: FileEntry) -> int | None:
    return entry.inputs[0].shape[0] if entry.inputs else None
