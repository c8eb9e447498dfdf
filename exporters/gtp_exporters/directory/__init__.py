"""Writes an artifact directory: an export is written to a staging folder and proven, then replaces the earlier one.

The staging folder is the hidden folder ``.gtp-export`` in the directory. So a new directory, a mount point, a link to
a directory, and a directory in a read-only parent all work in the same way, and the directory itself stays the same
(owner, permissions, open handles). No file is renamed across file systems.

    .gtp-export/lock    locked (flock) by the running export; a second export fails
    .gtp-export/new     the export that is being written and proven
    .gtp-export/done    the same folder, renamed by ``commit``: from here on the new export is the valid one

After the rename, files that only the earlier manifest lists are removed, and the new files are moved up one by one, the
manifest last. Each step can be repeated, and until the last step the earlier manifest lists the earlier files. So a
process may be killed at any time:

    before the rename   the earlier export is complete; the next export removes ``new``
    between             files are mixed: ``gtp_runtime.load`` rejects those that differ from the manifest (sha256); the
                        new export is complete in the two folders, and the next export first finishes the move
    after the manifest  the new export is complete; the next export removes ``done``

Only files that a manifest of gtp-export lists are replaced or removed, and auxiliary files of ours. An engine that was
built from the earlier graph and listed by ``build-engine`` belongs to the earlier export and is removed with it.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gtp_exporters.directory.contents import check_place
from gtp_exporters.directory.explaining import explain, is_about
from gtp_exporters.directory.lock import held
from gtp_exporters.directory.staging import Staging
from gtp_exporters.errors import OutputError
from gtp_runtime.manifest import WORK_NAME

__all__ = ["Staging", "staged", "tidied"]


@contextmanager
def staged(directory: Path | str) -> Iterator[Staging]:
    """Yield a ``Staging`` with a folder for the new export; its ``commit`` replaces the earlier one.

    Without ``commit``, or after an error before it, the earlier export is unchanged, and the new one is removed with
    the directories that were made for it. First, the leftovers of a killed export are cleaned up.

    Raises:
        OutputError: at once: the directory cannot be written, contains files of the user, or another export runs
            there. Later: no space is left, or the disk fails.
    """
    staging = Staging(_resolved(directory))
    try:
        check_place(staging.directory)
        with tidied(staging.directory), held(staging.directory / WORK_NAME):
            staging.open()
            try:
                yield staging
            finally:
                staging.close()
    except OSError as error:
        if staging.committed or not is_about(error, staging.directory):
            raise
        raise OutputError(explain(error, staging.directory)) from error


def _resolved(directory: Path | str) -> Path:
    try:
        return Path(directory).resolve()
    except (OSError, RuntimeError) as error:  # no current folder, links in a circle
        raise OutputError(f"cannot write {directory}: {error}; choose another -o") from error


@contextmanager
def tidied(directory: Path) -> Iterator[None]:
    """Remove, at the end, those of ``directory`` and its parents that are made meanwhile and empty."""
    made = [place for place in (directory, *directory.parents) if not place.exists()]
    try:
        yield
    finally:
        with suppress(OSError):
            for place in made:  # the innermost first; those that hold the export stay
                place.rmdir()
