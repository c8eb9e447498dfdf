"""Whether a directory holds exactly what its manifest lists: nothing changed, nothing taken away, nothing added."""

from collections.abc import Collection
from pathlib import Path

from gtp_runtime.atomic import temporary_of
from gtp_runtime.errors import ManifestError, SignatureError
from gtp_runtime.manifest import FILE_NAME, WORK_NAME, Manifest, check_file
from gtp_runtime.manifest.reading import LARGEST
from gtp_runtime.opening import open_regular

AGAIN = "take the directory from its source again"


def manifest_bytes(directory: Path) -> bytes:
    """Return the bytes of the manifest, which are signed: what they say is read from them, not from the file again.

    Raises:
        SignatureError: it is a link, or cannot be read.
        ManifestError: there is none.
    """
    path = directory / FILE_NAME
    try:
        with open_regular(path, LARGEST, links=False) as file:
            return file.read()
    except FileNotFoundError as error:
        raise ManifestError(f"no manifest {path}: gtp-export export MODEL -o DIR writes one") from error
    except OSError as error:
        raise SignatureError("changed", f"cannot read {path}: {error.strerror}") from error


def check_contents(directory: Path, manifest: Manifest, own: Collection[str]) -> None:
    """Check every file of a directory, but what writers of ours that were killed left: nothing reads that.

    Args:
        directory: where they are.
        manifest: what lists them.
        own: names that may be there beside those.

    Raises:
        SignatureError: "missing", "added" or "changed"; names the file.
    """
    known = {*manifest.files, *own}
    names = {entry.name for entry in directory.iterdir() if not _is_leftover(entry, known)}
    if missing := [name for name in sorted(set(manifest.files) - names) if not _is_whole(directory / name, manifest)]:
        raise SignatureError("missing", f"{directory / missing[0]} was taken away: {AGAIN}")
    if added := sorted(names - known):
        raise SignatureError("added", f"{directory / added[0]} was added, the manifest does not list it: remove it")
    for name in manifest.files:
        path = directory / name
        if path.is_symlink():
            raise SignatureError("changed", f"{path} is a link and must be a file: {AGAIN}")
        try:
            check_file(path, manifest)
        except ManifestError as error:
            raise SignatureError("changed", f"{error}".replace("export again", AGAIN)) from error


def _is_leftover(path: Path, known: Collection[str]) -> bool:
    """Whether it is a temporary file of a file that is known, or the folder in which an export is written."""
    if path.name == WORK_NAME:
        return path.is_dir() and not path.is_symlink()
    return temporary_of(path.name) in known and path.is_file() and not path.is_symlink()


def _is_whole(path: Path, manifest: Manifest) -> bool:
    """Whether a file that was not there is, now that it was checked."""
    try:
        check_file(path, manifest)
    except ManifestError:
        return False
    return True
