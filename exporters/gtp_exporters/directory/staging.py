"""An export on its way, and the move to its place."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from gtp_exporters.directory.contents import DONE, NEW, check_contents, refuse
from gtp_exporters.directory.explaining import explain
from gtp_exporters.errors import OutputError
from gtp_runtime import atomic
from gtp_runtime.atomic import temporary_of
from gtp_runtime.manifest import FILE_NAME, WORK_NAME
from gtp_runtime.manifest.updating import held
from gtp_runtime.owned import listed_files, own, valid_caches


@dataclass
class Staging:
    """An export on its way.

    Attributes:
        directory: where it belongs.
        committed: whether it counts.
    """

    directory: Path
    committed: bool = False
    _locked: bool = False

    @property
    def path(self) -> Path:
        """The folder to write and prove in, until ``commit``; the manifest there lists what belongs to the export."""
        return self.directory / WORK_NAME / NEW

    @property
    def done(self) -> Path:
        """The folder from which a committed export is moved to its place."""
        return self.directory / WORK_NAME / DONE

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory, so that what is taken over from the earlier export is still current at the ``commit``.

        Only for short work: those that record results or add engines wait.

        Raises:
            OSError: another process holds the lock.
        """
        with held(self.directory):
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def commit(self) -> None:
        """Put the export in place of the earlier one: the files that its manifest lists.

        Raises:
            OutputError: a file cannot be moved, or one of the user's has come to stand in its place.
            ValueError: no manifest was written, or a file that it lists is missing.
        """
        names = _listed(self.path)
        missing = [name for name in names if not (self.path / name).is_file()]
        if missing or not names:
            raise ValueError(f"{self.path} is no whole export: {', '.join(missing) or FILE_NAME} is missing")
        self._check_free(self.path)
        for name in names:
            atomic.flush(self.path / name)
        _flush_folder(self.path)
        self.path.rename(self.done)
        self.committed = True
        try:
            self._finish()
        except OSError as error:
            raise OutputError(explain(error, self.directory)) from error

    def open(self) -> None:
        """Put right what an export that was killed left, and make the folder to write in.

        Raises:
            OutputError: the directory holds files of the user's.
        """
        if self.done.exists():
            self._finish()
        if self.path.exists():
            shutil.rmtree(self.path)
        check_contents(self.directory)
        for name in filter(None, map(temporary_of, own(self.directory))):
            atomic.sweep(self.directory / name)
        self.path.mkdir()

    def close(self) -> None:
        """Remove what was not committed; finish what was, where an interrupt came in between."""
        with suppress(OSError, OutputError):  # the next export goes on
            if self.done.exists():
                self._finish()
        shutil.rmtree(self.path, ignore_errors=True)

    def _finish(self) -> None:
        # the lock: nothing is recorded in the earlier manifest meanwhile
        with nullcontext() if self._locked else held(self.directory):
            if (self.done / FILE_NAME).exists():
                names = _listed(self.done)
                self._check_free(self.done)
                _flush_folder(self.done.parent)
                self._move(names)
        shutil.rmtree(self.done)

    def _move(self, names: frozenset[str]) -> None:
        for name in own(self.directory) - names - valid_caches(self.directory, self.done):
            if temporary_of(name) is None:
                (self.directory / name).unlink()
        for name in names - {FILE_NAME}:
            if (self.done / name).exists():
                os.replace(self.done / name, self.directory / name)
        _flush_folder(self.directory)
        os.replace(self.done / FILE_NAME, self.directory / FILE_NAME)
        _flush_folder(self.directory)

    def _check_free(self, source: Path) -> None:
        """No file of the user's stands where one of ours goes; those that were moved already are not in ``source``."""
        coming = {name for name in listed_files(source) if (source / name).exists()}
        standing = {entry.name for entry in self.directory.iterdir()}
        refuse(self.directory, (coming & standing) - own(self.directory))


def _listed(folder: Path) -> frozenset[str]:
    """Return the names in a manifest of ours; none without one.

    Raises:
        OSError: it cannot be read, and what it lists would be taken for what it does not list.
    """
    names = listed_files(folder)
    if not names and (folder / FILE_NAME).exists():
        raise OSError(errno.EIO, "the manifest cannot be read", str(folder / FILE_NAME))
    return names


def _flush_folder(path: Path) -> None:
    with suppress(OSError):  # not every file system can
        atomic.flush(path)
