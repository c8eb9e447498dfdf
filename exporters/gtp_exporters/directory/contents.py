"""The contents of a directory: files of an earlier export, and files of the user, which no export may change."""

import os
import stat
from collections.abc import Iterable
from errno import ENOENT
from pathlib import Path

from gtp_exporters.errors import OutputError
from gtp_runtime.manifest import WORK_NAME
from gtp_runtime.owned import SYSTEM, own

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
