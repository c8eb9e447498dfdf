"""An export that is being written: what it holds is known, so nothing of it is read, hashed or recognised again."""

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtp_exporters.errors import LimitError
from gtp_runtime.errors import ManifestError
from gtp_runtime.manifest import FILE_NAME, FileEntry, Manifest, read_manifest
from gtp_runtime.precisions import PRECISIONS
from gtp_runtime.reference import Reference


@dataclass(frozen=True)
class Draft:
    """An export on its way.

    Attributes:
        directory: the folder in which its files are written.
        manifest: what there is so far; it is written last, once.
        reference: the parity pack.
    """

    directory: Path
    manifest: Manifest
    reference: Reference

    @property
    def graphs(self) -> list[str]:
        """Names of the graphs, the dense baseline first, and for each role the quantised one last."""
        files = self.manifest.files
        names = [name for name, entry in files.items() if entry.role in ("dense", "model")]
        return sorted(names, key=lambda name: (files[name].role, files[name].quantization is not None))

    def prover(self, name: str) -> str:
        """Return the backend that proves a graph."""
        return PRECISIONS[self.manifest.files[name].precision].prover

    def with_files(self, files: dict[str, FileEntry]) -> "Draft":
        """Return it with more files."""
        return replace(self, manifest=replace(self.manifest, files={**self.manifest.files, **files}))

    def with_results(self, results: dict[str, dict[str, Any]]) -> "Draft":
        """Return it with more that was measured: by kind, then by file."""
        return replace(self, manifest=replace(self.manifest, results={**self.manifest.results, **results}))


def check_fixed(entry: FileEntry, task: str) -> None:
    """Raise ``LimitError`` where a graph takes a range of batches, which ``task`` cannot.

    Args:
        entry: of the graph.
        task: what needs one number of images: "int8".
    """
    if entry.batch is not None:
        raise LimitError(
            f"{task} needs graphs for one number of images, and these take {entry.batch}: export them with "
            f"--batch {entry.batch.min}, or another number"
        )


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
