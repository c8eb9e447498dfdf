"""Reads, writes and changes ``model.json``: every value is held against its type, and an error names the wrong one.

python -c "from gtp_runtime.manifest import json_schema; print(json_schema(), end='')" > docs/model.schema.json
"""

import inspect
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from gtp_runtime import atomic
from gtp_runtime.atomic import held
from gtp_runtime.errors import InputError, ManifestError
from gtp_runtime.manifest.schema import (
    DTYPES,
    FILE_NAME,
    FORMS,
    MOST_BYTES,
    SCHEMA_VERSION,
    FileEntry,
    Manifest,
    Name,
    TensorSpec,
)
from gtp_runtime.messages import one_line
from gtp_runtime.opening import read_regular

LARGEST = 1 << 24  # bytes; a manifest of an engine that TensorRT describes in full has about 1 MB
DEEPEST = 36  # levels of the document
_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")  # of the path in a message of msgspec's
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
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
    manifest = _converted(values, path)
    if problem := next(_contradictions(manifest, values), ""):
        raise ManifestError(f"{path}: {one_line(problem)}; export again")
    return manifest


def _converted(values: dict[str, Any], path: Path) -> Manifest:
    """Hold values against their types. Files are converted one by one, so that an error names the file."""
    entries, place, part = values.get("files"), "", values
    files: dict[str, FileEntry] = {}
    try:
        if isinstance(entries, dict):
            for name, part in entries.items():
                place = f"files.{name:.60}"
                files[msgspec.convert(name, Name)] = msgspec.convert(part, FileEntry)
            place, part = "", {**values, "files": {}}
        return replace(msgspec.convert(part, Manifest), files=files)
    except msgspec.ValidationError as error:
        raise ManifestError(f"{path}: {one_line(_describe(str(error), part, place))}; export again") from error


def _contradictions(manifest: Manifest, values: Any) -> Iterator[str]:
    """Yield what is wrong though each value by itself could be right."""
    if _is_deeper(values, DEEPEST):
        yield f"it is nested more than {DEEPEST} levels deep"
    classes, images = manifest.model.named_classes, manifest.reference.get("images", "")
    for name, labels in (("labels", manifest.labels), ("label_ids", manifest.label_ids)):
        if labels is not None and len(labels) != classes:
            yield f"{name} has {len(labels)} names for {classes} classes"
    if not isinstance(images, str):
        yield f"reference.images is {_shown(images)}, not text"
    for name, entry in manifest.files.items():
        for spec in (*entry.inputs, *entry.outputs):
            if entry.batch is not None and spec.shape[0] != entry.batch.max:
                yield f"files.{name} takes a batch of {entry.batch}, and {spec.name} has a shape for {spec.shape[0]}"
            if _bytes(spec) > MOST_BYTES:
                yield f"files.{name} has a tensor {spec.name} of {spec.shape}, more than {MOST_BYTES} bytes"


def _is_deeper(values: Any, levels: int) -> bool:
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return any(levels == 0 or _is_deeper(entry, levels - 1) for entry in inner)


def _bytes(spec: TensorSpec) -> int:
    return prod(spec.shape) * (np.dtype(spec.dtype).itemsize if spec.dtype in DTYPES else 1)


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write ``model.json`` atomically.

    Raises:
        OSError: it cannot be written; an earlier one is unchanged.
    """
    try:
        encoded = msgspec.json.encode(manifest)
    except UnicodeEncodeError:  # names of files need not be UTF-8
        encoded = msgspec.json.encode(_spelled_out(msgspec.to_builtins(manifest)))
    content = msgspec.json.format(encoded, indent=1)
    atomic.write_bytes(directory / FILE_NAME, content + b"\n")


def _spelled_out(value: Any) -> Any:
    """Return plain values with what is no character written as ``\\udce9``."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_spelled_out(entry) for entry in value]
    return (
        {_spelled_out(name): _spelled_out(entry) for name, entry in value.items()} if isinstance(value, dict) else value
    )


def update_manifest(directory: Path, change: Callable[[Manifest], Manifest]) -> Manifest:
    """Read the manifest, write what ``change`` returns for it, and return that. Other processes wait.

    After any error, also one that ``change`` raises, the manifest is unchanged.

    Raises:
        ManifestError: the manifest is missing or damaged.
        OSError: it cannot be written or locked.
    """
    with held(directory):
        changed = change(read_manifest(directory))
        write_manifest(changed, directory)
    return changed


def json_schema() -> str:
    """Return the JSON Schema (draft 2020-12) of ``model.json`` as text; docs/model.schema.json is this.

    Other languages check or generate their readers with it.
    """
    document = msgspec.json.schema(Manifest)
    for definition in document["$defs"].values():
        definition["description"] = inspect.cleandoc(definition["description"])
    version: dict[str, Any] = document["$defs"]["Manifest"]["properties"]["schema_version"]
    version["pattern"] = rf"^{SCHEMA_VERSION.partition('.')[0]}\."
    document["$defs"]["Manifest"]["required"].append("schema_version")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{FILE_NAME} of gtp-export, version {SCHEMA_VERSION}",
    }
    return json.dumps({**head, **document}, indent=1, ensure_ascii=False) + "\n"


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


def _describe(message: str, values: Any, place: str) -> str:
    """Turn a message of msgspec's into one that names the leaf and what it is.

    Args:
        message: "Expected `int`, got `str` - at `$.size`".
        values: what was converted.
        place: where that is in the document.
    """
    what, _, where = message.partition(" - at ")
    keys: list[Any] = [name or (int(index) if index != "..." else index) for name, index in _STEP.findall(where)]
    leaf = _at(values, keys)
    name = ".".join(filter(None, [place, *map(str, keys)]))
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", what):
        return f"{name + '.' if name else ''}{missing[1]} is missing"
    if leaf is _UNNAMED:
        return f"{name.partition('....')[0]} holds an entry that is not {_expected(what)}"
    return f"{name} is {_shown(leaf)}, not {_expected(what)}"


_UNNAMED = object()  # an entry of a mapping, whose name msgspec does not say


def _at(values: Any, keys: list[Any]) -> Any:
    for key in keys:
        if key == "..." or (isinstance(values, dict) and key not in values):
            return _UNNAMED
        values = values[key]
    return values


def _expected(what: str) -> str:
    """Return in words what a message of msgspec's expects: "a whole number >= 0"."""
    if "matching regex" in what:
        return next(words for pattern, words in FORMS.items() if f"{pattern!r}" in what)
    expected = re.fullmatch(r"Expected `([^`]*)`(?:, got `[^`]*`)?(.*)", what, re.S)
    if not expected:
        return f"allowed: {what}"
    return " or ".join(_KINDS.get(kind, kind) for kind in expected[1].split(" | ")) + expected[2]


def _shown(leaf: Any) -> str:
    if isinstance(leaf, dict | list):
        return "an object" if isinstance(leaf, dict) else "a list"
    return f"{leaf!r:.60}" if not isinstance(leaf, int) or abs(leaf) < 1 << 80 else "a number of many digits"


def is_plain(name: str) -> bool:
    """Whether a name is that of a file beside its manifest: no folder in it, no way up."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")
