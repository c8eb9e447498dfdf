"""The folder beside TARGET in which installed exports are kept, and the link that says which one counts.

    with TARGET = /opt/app/vit:

    /opt/app/vit                             a link to one of the folders below
    /opt/app/.vit.installed/1-0a33f1c2       the last good export
    /opt/app/.vit.installed/2-1f9c04b7       the present one
    /opt/app/.vit.installed/new              only while an export is copied and proven

The switch is one ``rename`` of a link, which every file system with links does in one step, overlayfs among them. A
process that is killed leaves TARGET as it was or as it is to be; the next install removes what else is left. Nothing
but the link says which export counts: the one that it names, and the last good one is that with the next lower number.

An application that opened files of TARGET keeps them: their folder stays until the install after the next one. ``load``
reads once where the link points, so it gets the old export or the new one, never files of both.
"""

import ctypes
import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gtp_runtime import atomic
from gtp_runtime.atomic import flush_folder, held
from gtp_runtime.errors import InstallError
from gtp_runtime.manifest import FILE_NAME, file_sha256
from gtp_runtime.transaction import SYSTEM, own

log = logging.getLogger(__name__)
NEW, GONE, LINK = "new", "gone", "link"  # an export being proven, one being removed, a link on its way to TARGET
MOST_LINKS = 40
_VERSION = re.compile(r"(\d+)-[0-9a-f]{8}")


class Store:
    """What is installed at a target.

    Args:
        target: a path; a link that install did not make is followed.

    Attributes:
        target: the link, or what will become one.
        folder: where the exports are.
    """

    def __init__(self, target: Path) -> None:
        self.target = _followed(target.absolute())
        if not self.target.name:
            raise InstallError(f"{target} cannot be a link: give a folder in another one, such as /opt/app/model")
        self.folder = _folder_of(self.target)

    @property
    def new(self) -> Path:
        """Where an export is copied to and proven."""
        return self.folder / NEW

    def current(self) -> Path | None:
        """Return the folder that the target is a link to; None without one."""
        return self.target.parent / os.readlink(self.target) if self.target.is_symlink() else None

    def previous(self) -> Path | None:
        """Return the last good export before the current one; None if there is none."""
        current = self.current()
        below = [] if current is None else [path for path in self._versions() if _number(path) < _number(current)]
        return max(below, key=_number, default=None)

    def _versions(self) -> list[Path]:
        with suppress(FileNotFoundError):
            paths = [path for path in self.folder.iterdir() if _VERSION.fullmatch(path.name)]
            return [path for path in paths if not path.is_symlink() and (path / FILE_NAME).is_file()]
        return []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and hold it, and tidy up what a killed install left; at the end remove what was not put.

        Raises:
            InstallError: another install holds it.
            OSError: it cannot be made.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with held(self.folder, patience=0), self._tidied():
                yield
        except TimeoutError as error:
            if error.filename != str(self.folder):
                raise
            raise InstallError(f"another install to {self.target} is running: wait until it is done") from None

    @contextmanager
    def _tidied(self) -> Iterator[None]:
        """Remove what a killed install left, and at the end what was not put."""
        try:
            self._tidy()
            yield
        finally:
            shutil.rmtree(self.new, ignore_errors=True)
            with suppress(OSError):
                self.folder.rmdir()  # where nothing was installed

    def _tidy(self) -> None:
        for path in self.folder.iterdir():
            if path.is_symlink():
                path.unlink()
            elif path.name in (NEW, GONE):
                shutil.rmtree(path)

    def sweep(self) -> None:
        """Remove all but the current export and the last good one; folders with files of the user's stay."""
        kept = {self.current(), self.previous()}
        for path in self.folder.iterdir():
            if _VERSION.fullmatch(path.name) and path not in kept:
                self._remove(path)

    def _remove(self, version: Path) -> None:
        """Remove an export, in one step for those who look; a folder into which the user put files stays."""
        if others := _others(version):
            log.warning("%s is kept, for it holds other files: %s", version, ", ".join(others))
            return
        version.rename(self.folder / GONE)
        shutil.rmtree(self.folder / GONE)

    def put(self) -> Path:
        """Give the export that was proven its number, above all others, and return its folder.

        Raises:
            OSError: the disk fails.
        """
        atomic.flush(self.new)
        place = self.folder / f"{self._next()}-{file_sha256(self.new / FILE_NAME)[:8]}"
        self.new.rename(place)
        flush_folder(self.folder)
        return place

    def _next(self) -> int:
        """Return the next number; one is left for a folder at the target, which becomes the last good export."""
        numbers = [_number(path) for path in self.folder.iterdir() if _VERSION.fullmatch(path.name)]
        return max(numbers, default=0) + 2

    def check_target(self) -> None:
        """Check that the target may become a link.

        Raises:
            InstallError: it is a file, or a folder with other files than those of an export.
        """
        if self.target.is_symlink() or not self.target.exists():
            return
        if not self.target.is_dir():
            raise InstallError(f"{self.target} is a file: give the folder that the application loads")
        if others := _others(self.target):
            raise InstallError(
                f"{self.target} holds other files, which gtp-export did not write: {', '.join(others[:3])}; "
                "move them away, or install to another TARGET"
            )

    def switch(self, version: Path) -> None:
        """Let the target name another folder of the store, in one step.

        A folder at the target changes places with the link and becomes the version before.

        Raises:
            InstallError: the file system cannot exchange that folder.
            OSError: the file system has no links, or the target's folder cannot be written.
        """
        link = self.folder / LINK
        adopts = self.target.is_dir() and not self.target.is_symlink()
        if adopts:
            link = self.folder / f"{_number(version) - 1}-{_name_of(self.target)}"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(self.folder.name) / version.name)
        try:
            (exchange if adopts else os.replace)(link, self.target)
        except OSError as error:
            link.unlink(missing_ok=True)
            if not adopts:
                raise
            raise InstallError(
                f"{self.target} is a folder, which cannot be exchanged for a link at once here ({error.strerror}): "
                "move it away, or install to another TARGET"
            ) from error
        flush_folder(self.target.parent)


def _followed(target: Path) -> Path:
    """Follow links that install did not make: what they name is updated, and they stay."""
    for _ in range(MOST_LINKS):
        named = Path(os.readlink(target)) if target.is_symlink() else None
        if named is None:
            return target
        if named.parent == Path(_folder_of(target).name):
            if not _VERSION.fullmatch(named.name):
                raise InstallError(f"{target} is a link to {named}, which no install made: remove the link")
            return target
        target = target.parent / os.readlink(target)
    raise InstallError(f"{target} is a link in a circle: give another TARGET")


def _folder_of(target: Path) -> Path:
    return target.parent / f".{target.name}.installed"


def _number(version: Path) -> int:
    return int(version.name.partition("-")[0])


def _name_of(directory: Path) -> str:
    """Return the second part of a version's name, for an export that is there already or an empty folder."""
    manifest = directory / FILE_NAME
    return file_sha256(manifest)[:8] if manifest.is_file() else "0" * 8


def _others(directory: Path) -> list[str]:
    """Return the names of what is not of an export there."""
    return sorted({entry.name for entry in directory.iterdir()} - own(directory) - SYSTEM)


AT_FDCWD = -100  # paths are relative to the current folder
RENAME_EXCHANGE = 2


def exchange(one: Path, other: Path) -> None:
    """Let two existing paths of one file system change places, whatever they are, in one step.

    Raises:
        OSError: the C library or the file system cannot do it (overlayfs: a folder of a lower layer), or one is a mount
            point.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, "the C library has no renameat2")
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
