"""Writes an artifact directory: an export is written and proven apart, and then takes the place of the earlier one.

All happens inside the directory, in the hidden folder ``.gtp-export``: the same way for a new directory, a mount point,
a link to a directory and one whose parent cannot be written, and the directory itself stays what it is (its owner, its
permissions, who has it open). No file is ever renamed across file systems.

    .gtp-export/lock    held (flock) by the export that runs; a second one is refused
    .gtp-export/new     the export that is being written and proven
    .gtp-export/done    the same folder, renamed by ``commit``: from here on the new export counts

After the rename, files that only the earlier manifest lists are removed, the new files are moved up one by one, and the
manifest last. Each step can be done again, and the earlier manifest says which files are the earlier export's until the
last step. So a process may be killed at any time:

    before the rename   the earlier export is whole; the next export removes ``new``
    between             files are mixed: ``gtp_runtime.load`` refuses those that differ from the manifest (sha256); the
                        new export is whole in the two places, and the next export first finishes the move
    after the manifest  the new export is whole; the next export removes ``done``

Only files that a manifest of gtp-export lists are replaced or removed, and side files of ours. An engine that was built
from the earlier graph and listed by ``build-engine`` belongs to the earlier export and goes with it.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gtp_exporters.directory.contents import WORK_NAME, check_place
from gtp_exporters.directory.explaining import explain, is_about
from gtp_exporters.directory.lock import held
from gtp_exporters.directory.staging import Staging
from gtp_exporters.errors import OutputError

__all__ = ["Staging", "staged"]


@contextmanager
def staged(directory: Path | str) -> Iterator[Staging]:
    """Yield a ``Staging``, with a folder to write an export in; ``commit`` puts it in place of an earlier one.

    Without ``commit``, and whatever is raised before it, the earlier export stays whole; the new one is removed, and so
    are the directories that were made for it. What an export that was killed left there is first put right.

    Raises:
        OutputError: at once: the place cannot be written, holds files of the user's, or another export runs there.
            Later: no space is left, or the disk fails.
    """
    staging = Staging(_resolved(directory))
    try:
        check_place(staging.directory)
        with _tidied(staging.directory), held(staging.directory / WORK_NAME):
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
def _tidied(directory: Path) -> Iterator[None]:
    """Remove, at the end, those of ``directory`` and its parents that are made meanwhile and empty."""
    made = [place for place in (directory, *directory.parents) if not place.exists()]
    try:
        yield
    finally:
        with suppress(OSError):
            for place in made:  # the innermost first; those that hold the export stay
                place.rmdir()
