"""The files of an artifact directory: whether they are what the manifest says, and which one is whose dense twin."""

import hashlib
import logging
import os
from pathlib import Path
from typing import BinaryIO

from gtp_runtime import atomic
from gtp_runtime.errors import InputError, ManifestError
from gtp_runtime.manifest.reading import is_plain, read_manifest
from gtp_runtime.manifest.schema import MODEL_NAME, BatchRange, FileEntry, Manifest
from gtp_runtime.onnx_scan import ScanError, scan
from gtp_runtime.opening import open_regular, read_regular

log = logging.getLogger(__name__)


def file_sha256(path: Path) -> str:
    """Hash a regular file; hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        return _sha256(file)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def bytes_sha256(content: bytes) -> str:
    """Hash the content of a file; hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def check_file(path: Path, manifest: Manifest) -> None:
    """Check that a file is what the manifest says, and the file beside it that holds its weights likewise.

    The size is compared first, so no more is read than the manifest says. A graph is scanned: it may name no file but
    the one that the manifest lists for its weights.

    Raises:
        ManifestError: it is missing, not listed, not a regular file, or its size or sha256 differs; its weights are not
            a regular file beside it; it is an ONNX file that is damaged or names other files; it is an engine or
            a converted file, and the manifest lists another graph than the one that it was made from.
    """
    entry = manifest.listed(path.name)
    _check_hash(path, entry)
    if entry.origin is not None:
        _check_origin(path, entry, manifest)
    if entry.external_data is not None:
        _check_data(path, entry.external_data, manifest)
    if path.suffix == ".onnx":
        try:
            scan(path, entry.external_data)
        except (ScanError, OSError) as error:
            raise ManifestError(f"{path} cannot be used: {error}; export again") from error


def _check_origin(path: Path, entry: FileEntry, manifest: Manifest) -> None:
    """What was made from a graph fits the one that the manifest lists; the graph itself need not be there."""
    assert entry.origin is not None
    graph, sha256 = entry.origin
    if graph in manifest.files and manifest.files[graph].sha256 != sha256:
        again = "build-engine builds" if entry.engine else "convert makes it"
        raise ManifestError(f"{path} was made from another {graph} than its manifest lists: gtp-export {again} again")


def _check_data(path: Path, name: str, manifest: Manifest) -> None:
    data = path.parent / name
    if not is_plain(name) or manifest.listed(name).role != "data":
        raise ManifestError(f"{path.name} keeps its weights in {name!r}, which is not its data file: export again")
    if data.is_symlink() or (data.exists() and not data.is_file()):
        raise ManifestError(f"{data} contains weights and must be a regular file, not a link or folder: copy it there")
    _check_hash(data, manifest.listed(name))


def _check_hash(path: Path, entry: FileEntry) -> None:
    """Check a file. One whose writer was killed between manifest and file is moved to its place first."""
    try:
        problem = _difference(path, entry)
    except FileNotFoundError as error:
        if not _finished(path, entry):
            raise ManifestError(
                f"no file {path}, though the manifest lists it: copy it there, or export again"
            ) from error
        return
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    if problem and not _finished(path, entry):
        raise ManifestError(f"{path} is not the file that its manifest describes ({problem}): export again")


def is_present(path: Path, manifest: Manifest) -> bool:
    """Whether a file is there; one whose writer was killed before it had its name is moved to its place."""
    return path.exists() or (path.name in manifest.files and _finished(path, manifest.files[path.name]))


def _finished(path: Path, entry: FileEntry) -> bool:
    return atomic.finish(path, lambda temporary: not _difference(temporary, entry))


def _difference(path: Path, entry: FileEntry) -> str:
    """Return in what a file differs from its entry; "" where it does not. Raises ``OSError`` as ``open_regular``."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != entry.size:
            return f"{size} bytes, not {entry.size}: sha256 differs"
        return "" if _sha256(file) == entry.sha256 else "sha256 differs"


def read_checked(path: Path, entry: FileEntry) -> bytes:
    """Return what a file holds, once these very bytes are what the manifest says: none can be put in between.

    Raises:
        ManifestError: it cannot be read, or its size or sha256 differs.
    """
    try:
        content = read_regular(path, entry.size)
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise ManifestError(f"{path} is not the file that its manifest describes (sha256 differs): export again")
    return content


def twin(path: Path) -> Path | None:
    """Return the dense baseline of a file: the unpatched model with the same batch, in the same form if there is one.

    ``model.engine`` goes with ``dense.engine``, else with ``dense.onnx``. Of several with the same extension it is the
    one of the same precision: ``model.int8.onnx`` goes with ``dense.int8.onnx``. A dense file has no baseline.

    Args:
        path: a file of an artifact directory, or the directory, which means ``model.onnx``.

    Raises:
        ManifestError: no manifest beside the file, or one that does not list it.
    """
    file = find_graph(path)
    manifest = read_manifest(file.parent)
    entry = manifest.entry(file.name)
    if entry.role == "dense":
        return None
    names = [name for name, other in manifest.files.items() if other.role == "dense" and _batch(other) == _batch(entry)]
    names.sort(key=lambda name: _unlike(name, manifest.files[name], file, entry))
    there = [file.parent / name for name in names if (file.parent / name).is_file()]
    log.info("dense twin of %s: %s", file, there[0] if there else f"none (listed: {', '.join(names) or 'none'})")
    return there[0] if there else None


def _unlike(name: str, other: FileEntry, file: Path, entry: FileEntry) -> tuple[bool, bool, bool, bool, str]:
    """Return a key that sorts files of the same form first."""
    suffix, precision = Path(name).suffix, other.precision
    return suffix != file.suffix, precision != entry.precision, precision != "fp32", suffix != ".onnx", name


def find_graph(path: Path, precision: str | None = None) -> Path:
    """Return a file as it is, or the model's graph of an artifact directory.

    Args:
        path: a file or an artifact directory.
        precision: precision of the graph; None means ``model.onnx``, whatever its precision.

    Raises:
        ManifestError: no manifest, or no graph of this precision.
        InputError: a precision with a file, which has its own.
    """
    if not path.is_dir():
        if precision is not None:
            raise InputError(
                f"{path} is a file and has its own precision: give its directory with precision {precision}"
            )
        return path
    if precision is None:
        return path / MODEL_NAME
    graphs = {name: entry for name, entry in read_manifest(path).files.items() if name.endswith(".onnx")}
    models = {name: entry.precision for name, entry in graphs.items() if entry.role == "model"}
    names = [name for name, present in models.items() if present == precision]
    if not names:
        there = ", ".join(dict.fromkeys(models.values())) or "none"
        raise ManifestError(
            f"{path} has no {precision} graph, it has {there}: gtp-export quantize makes int8, "
            f"gtp-export export --precision {precision} the others"
        )
    return path / names[0]


def _batch(entry: FileEntry) -> BatchRange | None:
    return entry.batches if entry.inputs else None
