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

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path
from typing import Any

from gtp_runtime import atomic
from gtp_runtime.atomic import flush_folder, held, held_work, temporary_of
from gtp_runtime.errors import OutputError
from gtp_runtime.manifest import CACHE_SUFFIX, ENGINE_SUFFIX, FILE_NAME, SIGNATURE_NAME, WORK_NAME
from gtp_runtime.manifest.reading import LARGEST
from gtp_runtime.opening import read_regular

SYSTEM = {"lost+found"}  # a file system's own, at its root
_SECTIONS = {"schema_version", "model", "weights", "preprocessing", "files"}
_LATER = (ENGINE_SUFFIX, CACHE_SUFFIX)  # files that are made after the export


def own(directory: Path) -> set[str]:
    """Return the names of the earlier export's files: the manifest, those that it lists, and our side files.

    Without a manifest of gtp-export nothing is ours. Folders are never ours.
    """
    listed = listed_files(directory)
    if not listed:
        return set()
    names = {entry.name for entry in directory.iterdir() if entry.is_symlink() or not entry.is_dir()}
    return {name for name in names if name in listed or _is_side_file(name) or _is_temporary(name, listed)}


def _is_side_file(name: str) -> bool:
    """Whether it is made after the export and listed by no manifest; a new export removes it."""
    return name == SIGNATURE_NAME or name.endswith(CACHE_SUFFIX)


def _is_temporary(name: str, listed: frozenset[str]) -> bool:
    base = temporary_of(name)
    return base is not None and (base in listed or base == SIGNATURE_NAME or base.endswith(_LATER))


def listed_files(directory: Path) -> frozenset[str]:
    """Return the names in the manifest there, the manifest's own included; none where it is not one of gtp-export."""
    listed = _hashes(directory)
    return frozenset([FILE_NAME, *listed]) if listed else frozenset()


def valid_caches(earlier: Path, new: Path) -> set[str]:
    """Return the names of the engine caches in a directory that stay valid when another export replaces the one there:
    those of the engines that both manifests list with the same sha256.
    """
    before, after = _hashes(earlier), _hashes(new)
    same = {name for name, sha256 in after.items() if name.endswith(ENGINE_SUFFIX) and before.get(name) == sha256}
    return {Path(name).with_suffix(CACHE_SUFFIX).name for name in same}


def _hashes(directory: Path) -> dict[str, Any]:
    """Return the sha256 of each file in the manifest there; none where it is not one of gtp-export.

    It is read by hand, for a manifest of another major version is refused by ``read_manifest``, and may be replaced.
    """
    try:
        values = json.loads(read_regular(directory / FILE_NAME, LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: entry["sha256"] for name, entry in values["files"].items()} if _is_manifest(values) else {}


def _is_manifest(values: Any) -> bool:
    if not isinstance(values, dict) or not values.keys() >= _SECTIONS or not isinstance(values["files"], dict):
        return False
    entries = values["files"].values()
    return bool(entries) and all(isinstance(entry, dict) and entry.keys() >= {"role", "sha256"} for entry in entries)


NEW, DONE = "new", "done"  # in WORK_NAME: an export being written; one that counts, not wholly in its place yet
_LOOK = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK)  # O_PATH, of Linux, needs no permission to read
SHOWN = 3  # names of the user's files in a message


def check_place(directory: Path) -> None:
    """Check that an export can be written to ``directory`` (an absolute path), at no cost.

    Raises:
        OutputError: it is a file, cannot be written, or holds other files.
    """
    place = _nearest(directory)
    # an export that runs there, or ended while we looked, is for the lock to find out
    if place == directory and _others(directory) and not is_work(directory / WORK_NAME):
        check_contents(directory)


def _nearest(directory: Path) -> Path:
    """Return the nearest of ``directory`` and its parents that exists, where a folder can be made.

    It is opened once and then asked: another export that ends there may remove it and make it again meanwhile.
    """
    for place in (directory, *directory.parents):
        try:
            descriptor = os.open(place, _LOOK)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            _check(descriptor, place, directory)
        finally:
            os.close(descriptor)
        return place
    raise FileNotFoundError(ENOENT, os.strerror(ENOENT), str(directory))


def _check(descriptor: int, place: Path, directory: Path) -> None:
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        problem = f"{place} is a file: -o names the artifact directory"
        raise OutputError(problem if place == directory else f"cannot write {directory}: {problem}")
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor):
        raise OutputError(f"{place} cannot be written: choose another -o")


def check_contents(directory: Path) -> None:
    """Raise ``OutputError`` where ``directory`` holds anything that is not of an earlier export there."""
    refuse(directory, _others(directory))


def _others(directory: Path) -> set[str]:
    try:
        names = {entry.name for entry in directory.iterdir()} - own(directory) - SYSTEM
    except FileNotFoundError:  # removed since by another export that failed
        return set()
    return {name for name in names if name != WORK_NAME or _is_foreign(directory / name)}


def _is_foreign(path: Path) -> bool:
    """Whether something of the user's has the name of our working folder, which may be removed while we look."""
    return os.path.lexists(path) and not is_work(path)


def refuse(directory: Path, others: Iterable[str]) -> None:
    """Raise ``OutputError`` if there are such files of the user's, and name the first few."""
    names = sorted(others)
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise OutputError(
            f"{directory} holds other files, which gtp-export did not write: {', '.join(names[:SHOWN])}{more}; "
            "choose another -o, or move them away"
        )


def is_work(path: Path) -> bool:
    """Whether this is a working folder of ours, which an export uses now or left when it was killed."""
    return path.is_dir() and not path.is_symlink()


_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK = (*_FULL, errno.EIO, errno.EROFS, errno.EFBIG)


def is_about(error: OSError, directory: Path) -> bool:
    """Whether an error is about writing there: a full disk often comes without a name."""
    names = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    if not names:
        return error.errno in _DISK
    return any(path == directory or path in directory.parents or directory in path.parents for path in names)


def explain(error: OSError, directory: Path) -> str:
    """Return a line with the failure, what to do, and the state of the directory."""
    if error.errno in _FULL:
        return f"no space left to write {directory}: free some there; {_remains(directory)}"
    return f"cannot write {directory}: {error.strerror or error}; {_remains(directory)}"


def _remains(directory: Path) -> str:
    """Return the state of the directory after a failure."""
    work = directory / WORK_NAME
    with suppress(OSError):
        if (work / DONE / FILE_NAME).exists():
            return f"the new export is complete in {work / DONE} and {directory}: the next export there moves the rest"
        if work.exists():
            return f"{work} could not be removed: the next export there does so"
        if listed_files(directory):
            return "the earlier export is unchanged"
    return "nothing was left behind"


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
        flush_folder(self.path)
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
                flush_folder(self.done.parent)
                self._move(names)
        shutil.rmtree(self.done)

    def _move(self, names: frozenset[str]) -> None:
        for name in own(self.directory) - names - valid_caches(self.directory, self.done):
            if temporary_of(name) is None:
                (self.directory / name).unlink()
        for name in names - {FILE_NAME}:
            if (self.done / name).exists():
                os.replace(self.done / name, self.directory / name)
        flush_folder(self.directory)
        os.replace(self.done / FILE_NAME, self.directory / FILE_NAME)
        flush_folder(self.directory)

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
        with tidied(staging.directory), held_work(staging.directory / WORK_NAME):
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
