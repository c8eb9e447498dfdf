"""Stores results of a file in its manifest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from gtp_runtime.manifest import read_manifest, write_manifest


def record(path: Path, kind: str, result: dict[str, Any]) -> bool:
    """Keep a result of a file ("parity", "latency") in its manifest; False where the directory cannot be written."""
    current = read_manifest(path.parent)
    results = {name: dict(files) for name, files in current.results.items()}
    results.setdefault(kind, {})[path.name] = result
    try:
        write_manifest(replace(current, results=results), path.parent)
    except OSError:
        return False
    return True
