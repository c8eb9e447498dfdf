"""The contents of a directory: files of an earlier export, and files of the user, which no export may change."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gtp_exporters.errors import OutputError
from gtp_runtime.engine_info import CACHE_SUFFIX
from gtp_runtime.manifest import FILE_NAME
from gtp_runtime.manifest.reading import LARGEST
from gtp_runtime.opening import read_regular
from gtp_runtime.trust import SIGNATURE_NAME

WORK_NAME = ".gtp-export"  # the hidden folder in which an export is written
NEW, DONE = "new", "done"  # in it: an export being written, and one that counts and is not yet wholly in its place
SHOWN = 3  # names of the user's files in a message
_SECTIONS = {"schema_version", "model", "weights", "preprocessing", "files"}
_TEMPORARY = re.compile(r"\.(.+)\.tmp-\d+-\d+")  # of gtp_runtime.atomic
_LATER = (".engine", CACHE_SUFFIX)  # files that are made after the export
_SYSTEM = {"lost+found"}  # a file system's own, at its root


def check_place(directory: Path) -> None:
    """Check that an export can be written to ``directory`` (an absolute path), at no cost.

    Raises:
        OutputError: it is a file, cannot be written, or holds other files.
    """
    place = next(place for place in (directory, *directory.parents) if place.exists())
    if not place.is_dir():
        problem = f"{place} is a file: -o names the artifact directory"
        raise OutputError(problem if place == directory else f"cannot write {directory}: {problem}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"{place} cannot be written: choose another -o")
    # an export that runs there, or ended while we looked, is for the lock to find out
    if place == directory and _others(directory) and not is_work(directory / WORK_NAME):
        check_contents(directory)


def check_contents(directory: Path) -> None:
    """Raise ``OutputError`` where ``directory`` holds anything that is not of an earlier export there."""
    refuse(directory, _others(directory))


def _others(directory: Path) -> set[str]:
    try:
        names = {entry.name for entry in directory.iterdir()} - own(directory) - _SYSTEM
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


def temporary_of(name: str) -> str | None:
    """Return the name of the file for which ``gtp_runtime.atomic`` made this temporary; None for other files."""
    found = _TEMPORARY.fullmatch(name)
    return found and found.group(1)


def listed_files(directory: Path) -> frozenset[str]:
    """Return the names in the manifest there, the manifest's own included; none where it is not one of gtp-export.

    It is read by hand, for a manifest of another major version is refused by ``read_manifest``, and may be replaced.
    """
    try:
        values = json.loads(read_regular(directory / FILE_NAME, LARGEST))
    except (OSError, ValueError, RecursionError):
        return frozenset()
    return frozenset([FILE_NAME, *values["files"]]) if _is_manifest(values) else frozenset()


def _is_manifest(values: Any) -> bool:
    if not isinstance(values, dict) or not values.keys() >= _SECTIONS or not isinstance(values["files"], dict):
        return False
    entries = values["files"].values()
    return bool(entries) and all(isinstance(entry, dict) and entry.keys() >= {"role", "sha256"} for entry in entries)
