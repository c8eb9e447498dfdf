"""Stores results of a file in its manifest."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest import Manifest, update_manifest
from gtp_runtime.trust import is_signed

log = logging.getLogger(__name__)


def record(path: Path, sha256: str, kind: str, result: dict[str, Any]) -> bool:
    """Keep a result ("parity", "latency") of the file with this sha256 in its manifest.

    Returns:
        False where the directory is signed, the manifest cannot be written, or it no longer lists this very file; the
        log says which.
    """
    if is_signed(path.parent):
        log.info("%s of %s is not kept: the manifest is signed", kind, path)
        return False

    def added(current: Manifest) -> Manifest:
        if current.entry(path.name).sha256 != sha256:
            raise ManifestError(f"{path} was replaced since it was loaded")
        results = {name: dict(files) for name, files in current.results.items()}
        results.setdefault(kind, {})[path.name] = result
        return replace(current, results=results)

    try:
        update_manifest(path.parent, added)
    except (OSError, ManifestError) as error:
        log.info("%s of %s is not kept: %s", kind, path, error)
        return False
    return True
