"""Reads and writes ``model.json``: every value is checked against its type, and an error names the wrong one."""

import os
import re
from pathlib import Path
from typing import Any

import msgspec

from gtp_runtime import atomic
from gtp_runtime.errors import InputError, ManifestError
from gtp_runtime.manifest.meaning import find_problem
from gtp_runtime.manifest.schema import FILE_NAME, SCHEMA_VERSION, Manifest
from gtp_runtime.opening import read_regular
from gtp_runtime.text import one_line

LARGEST = 1 << 24  # bytes; a manifest of an engine that TensorRT describes in full has about 1 MB
_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")  # of the path in a message of msgspec's
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}


def read_manifest(directory: "str | os.PathLike[str]") -> Manifest:
    """Read ``model.json`` of an artifact directory. Unknown keys are ignored, and newer minor versions are accepted.

    Raises:
        ManifestError: the manifest is missing, damaged, of another major version, or holds values that cannot be true.
        InputError: ``directory`` is not a path.
    """
    if not isinstance(directory, str | os.PathLike):
        raise InputError(f"give the directory as a path, not {type(directory).__name__}")
    path = Path(directory) / FILE_NAME
    try:
        content = read_regular(path, LARGEST)
    except FileNotFoundError as error:
        raise ManifestError(
            f"no manifest {path}: a model needs the {FILE_NAME} that gtp-export export wrote next to it"
        ) from error
    except OSError as error:
        raise ManifestError(f"cannot read the manifest {path}: {error.strerror}") from error
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """Return the manifest that a file's content is; ``path`` names it in errors. Raises as ``read_manifest`` does."""
    try:
        values = msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is not JSON ({one_line(error)}): export again") from error
    _check_version(values, path)
    try:
        manifest = msgspec.convert(values, Manifest)
    except msgspec.ValidationError as error:
        raise ManifestError(f"{path}: {one_line(_describe(str(error), values))}; export again") from error
    _check_names(manifest, path)
    if problem := find_problem(manifest):
        raise ManifestError(f"{path}: {one_line(problem)}; export again")
    return manifest


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write ``model.json`` atomically.

    Raises:
        OSError: it cannot be written; an earlier one is unchanged.
    """
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    atomic.write_bytes(directory / FILE_NAME, content + b"\n")


def _check_version(values: Any, path: Path) -> None:
    version = one_line(values.get("schema_version", ""), 20) if isinstance(values, dict) else ""
    major = version.partition(".")[0]
    ours = int(SCHEMA_VERSION.partition(".")[0])
    if not (major.isascii() and major.isdecimal()):
        raise ManifestError(f"{path} has no schema_version: it is not a manifest of gtp-export")
    if int(major) > ours:
        raise ManifestError(f"{path} has schema version {version}, newer than {SCHEMA_VERSION}: update gtp-export here")
    if int(major) < ours:
        raise ManifestError(f"{path} has schema version {version}, but this gtp-export reads {ours}.x: export again")


def _check_names(manifest: Manifest, path: Path) -> None:
    """Reject names that lead out of the manifest's directory."""
    for name, entry in manifest.files.items():
        for given in (name, entry.external_data, None if entry.engine is None else entry.engine.onnx):
            if given is not None and not is_plain(given):
                problem = f"files.{name:.60} names {given!r:.60}, not a file next to it"
                raise ManifestError(f"{path}: {one_line(problem)}; export again")


def is_plain(name: str) -> bool:
    """Whether a name is that of a file beside its manifest: no folder in it, no way up."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _describe(message: str, values: Any) -> str:
    """Turn a message of msgspec's into one that names the leaf and what it is."""
    what, _, where = message.partition(" - at ")
    keys = _keys(values, where, message)
    name = ".".join(map(str, keys))
    missing = re.fullmatch(r"Object missing required field `(\w+)`", what)
    if missing:
        return f"{'.'.join([*map(str, keys), missing[1]])} is missing"
    expected = re.match(r"Expected `([^`]*)`, got ", what)
    if not expected:
        return f"{name}: {what}"
    leaf = _at(values, keys)
    kinds = " or ".join(_KINDS.get(kind, kind) for kind in expected[1].split(" | "))
    shown = "an object" if isinstance(leaf, dict) else "a list" if isinstance(leaf, list) else f"{leaf!r:.60}"
    return f"{name} is {shown}, not {kinds}"


def _keys(values: Any, path: str, message: str) -> list[Any]:
    """Return the keys that lead to a bad leaf. msgspec says "[...]" for an entry of a mapping: find out which one it is
    that alone gives the same message.
    """
    keys: list[Any] = []
    for name, entry in _STEP.findall(path):
        if entry == "...":
            keys.append(next(key for key in _at(values, keys) if _complaint(_only(values, keys, key)) == message))
        else:
            keys.append(name or int(entry))
    return keys


def _at(values: Any, keys: list[Any]) -> Any:
    for key in keys:
        values = values[key]
    return values


def _only(values: Any, keys: list[Any], name: str) -> Any:
    """Return the same values with one entry alone in the mapping that the keys lead to."""
    if not keys:
        return {name: values[name]}
    copy = values.copy()
    copy[keys[0]] = _only(values[keys[0]], keys[1:], name)
    return copy


def _complaint(values: Any) -> str:
    try:
        msgspec.convert(values, Manifest)
    except msgspec.ValidationError as error:
        return str(error)
    return ""
