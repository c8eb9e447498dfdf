"""The files of an artifact directory that are gtp-export's, so that nothing else is ever replaced or removed."""

import json
from pathlib import Path
from typing import Any

from gtp_runtime.atomic import temporary_of
from gtp_runtime.manifest import CACHE_SUFFIX, ENGINE_SUFFIX, FILE_NAME, SIGNATURE_NAME
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
