"""Copies an export: what its manifest lists, each file checked once it is there."""

import logging
import os
import shutil
from pathlib import Path

from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest import FILE_NAME, check_file, read_manifest
from gtp_runtime.manifest.reading import LARGEST
from gtp_runtime.opening import open_regular
from gtp_runtime.trust import SIGNATURE_NAME
from gtp_runtime.trust.signature import LARGEST as LARGEST_SIGNATURE

log = logging.getLogger(__name__)


def copy_export(source: Path, place: Path) -> None:
    """Copy an export to a new folder, onto the disk. Listed files that are missing are left out.

    Raises:
        ManifestError: no manifest, or a file that is not as it says.
        OSError: no space is left, or a disk fails.
    """
    read_manifest(source)  # a wrong directory costs no copy
    place.mkdir()
    _copy(source / FILE_NAME, place / FILE_NAME, LARGEST)
    manifest = read_manifest(place)
    if os.path.lexists(source / SIGNATURE_NAME):
        _copy(source / SIGNATURE_NAME, place / SIGNATURE_NAME, LARGEST_SIGNATURE)
    for name, entry in manifest.files.items():
        if os.path.lexists(source / name):
            _copy(source / name, place / name, entry.size)
        else:
            log.info("%s is not in %s, and left out", name, source)
    for name in manifest.files:
        if (place / name).exists():
            check_file(place / name, manifest)


def _copy(source: Path, place: Path, largest: int) -> None:
    try:
        opened = open_regular(source, largest)
    except OSError as error:
        raise ManifestError(
            f"cannot copy {source}: {error.strerror}; take the directory from its source again"
        ) from error
    with opened, place.open("xb") as written:
        shutil.copyfileobj(opened, written, 1 << 20)
        written.flush()
        os.fsync(written.fileno())
