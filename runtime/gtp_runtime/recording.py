"""Keeps what was measured of a file in its manifest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from gtp_runtime.manifest import read_manifest, write_manifest
from gtp_runtime.trust import is_signed


def record(path: Path, kind: str, result: dict[str, Any]) -> bool:
    """Keep a result of a file ("parity", "latency") in its manifest; False where the directory cannot be written, or is
    signed: its manifest stays as the signer left it.
    """
    if is_signed(path.parent):
        return False
    current = read_manifest(path.parent)
    results = {name: dict(files) for name, files in current.results.items()}
    results.setdefault(kind, {})[path.name] = result
    try:
        write_manifest(replace(current, results=results), path.parent)
    except OSError:
        return False
    return True
