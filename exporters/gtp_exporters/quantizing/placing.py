"""Puts int8 files beside those of an export that stay as they are."""

import os
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from gtp_exporters.quantizing.job import PRECISION
from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest import FILE_NAME, FileEntry, Manifest, read_manifest


def linked(directory: Path, place: Path, without: Collection[str] = ()) -> None:
    """Put the files of an export into another folder, without copying them where the file system can link.

    Files that are there already, by the manifest there, stay.

    Args:
        directory: the artifact directory.
        place: the other folder; other files of these names there are replaced.
        without: names of files that are left out.

    Raises:
        ManifestError: no manifest, or a file is missing.
    """
    there = read_manifest(place).files if (place / FILE_NAME).exists() else {}
    wanted = [name for name, entry in read_manifest(directory).files.items() if entry != there.get(name)]
    for name in (*(name for name in wanted if name not in without), FILE_NAME):
        if not (directory / name).is_file():
            raise ManifestError(
                f"no file {directory / name}, though the manifest lists it: copy it there, or export again"
            )
        (place / name).unlink(missing_ok=True)
        try:
            os.link(directory / name, place / name)
        except OSError:
            shutil.copy2(directory / name, place / name)


def with_files(manifest: Manifest, files: dict[str, FileEntry], results: dict[str, Any]) -> Manifest:
    """Return the manifest with int8 files in place of earlier ones, and without what was measured of those."""
    earlier = {name for name, entry in manifest.files.items() if _is_int8_graph(name, entry)}
    earlier |= {str(manifest.files[name].external_data) for name in earlier}
    kept = {name: entry for name, entry in manifest.files.items() if name not in earlier | files.keys()}
    measured = {
        kind: {file: result for file, result in found.items() if file not in earlier | files.keys()}
        for kind, found in manifest.results.items()
    }
    return replace(
        manifest,
        files=kept | files,
        results={kind: found for kind, found in measured.items() if found} | {"quantization": results},
    )


def _is_int8_graph(name: str, entry: FileEntry) -> bool:
    return entry.precision == PRECISION and name.endswith(".onnx")
