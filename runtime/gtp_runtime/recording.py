"""Stores what was measured of a file in its manifest, where that can be changed."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from gtp_runtime.deploy.signing import is_signed
from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest import Manifest, update_manifest

log = logging.getLogger(__name__)


def record(path: Path, sha256: str, kind: str, result: dict[str, Any]) -> bool:
    """Store a result ("parity", "latency") of the file with this sha256 in its manifest.

    Returns:
        False if the directory is signed, the manifest cannot be written, or it lists another file of this name by now;
        the log has the reason.
    """
    if is_signed(path.parent):
        log.info("%s of %s is not stored: the manifest is signed", kind, path)
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
        log.info("%s of %s is not stored: %s", kind, path, error)
        return False
    return True
