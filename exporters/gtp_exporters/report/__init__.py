"""``report.html``: one page that shows what an artifact directory holds, and what was measured of it.

The page needs no network and no script. It stands on the manifest and the parity pack alone, so it is made on a device
too; token maps of other images need what runs the graph. The manifest lists it, with the role "report".
"""

from dataclasses import replace
from pathlib import Path

from gtp_exporters.draft import Draft
from gtp_exporters.report.page import render
from gtp_exporters.report.samples import Sample, samples_of_pack
from gtp_runtime import atomic
from gtp_runtime.deploy.signing import is_signed
from gtp_runtime.errors import OutputError
from gtp_runtime.manifest import (
    REFERENCE_NAME,
    FileEntry,
    Manifest,
    bytes_sha256,
    check_file,
    read_manifest,
    update_manifest,
)
from gtp_runtime.reference import read_reference

__all__ = ["REPORT_NAME", "write_report"]

REPORT_NAME = "report.html"


def write_report(directory: Path, output: Path | None = None, samples: list[Sample] | None = None) -> Path:
    """Write the page of an artifact directory and return its path.

    Args:
        directory: the artifact directory.
        output: another file than ``report.html`` there, which the manifest then does not list.
        samples: images with what happens to their tokens (default: some of the parity pack's).

    Raises:
        ManifestError: no manifest or no parity pack there, or damaged ones.
        OutputError: a ``report.html`` there that is not of gtp-export, a signed directory without ``output``, or a file
            that cannot be written.
    """
    manifest = read_manifest(directory)
    place = output or directory / REPORT_NAME
    if output is None and is_signed(directory):
        raise OutputError(f"{directory} is signed, and a page there would break its signature: choose a file with -o")
    if output is None and place.exists() and REPORT_NAME not in manifest.files:
        raise OutputError(f"{place} is not of gtp-export: move it away, or choose another file with -o")
    content = render(manifest, _of_pack(directory, manifest) if samples is None else samples).encode()
    try:
        with atomic.replacing(place) as temporary:
            temporary.write_bytes(content)
            atomic.flush(temporary)
            if output is None:  # listed first: a file that is listed is never taken for one of the user's
                _list(content, directory)
    except OSError as error:
        raise OutputError(f"cannot write {place}: {error.strerror or error}; choose another file with -o") from error
    return place


def add_report(draft: Draft) -> Draft:
    """Write the page of an export that is being written, and return that with it.

    Raises:
        MissingPackageError: Jinja2 is not installed.
        OSError: it cannot be written.
    """
    content = render(draft.manifest, samples_of_pack(draft.reference, draft.manifest)).encode()
    (draft.directory / REPORT_NAME).write_bytes(content)
    return draft.with_files({REPORT_NAME: FileEntry("report", bytes_sha256(content), len(content))})


def _of_pack(directory: Path, manifest: Manifest) -> list[Sample]:
    check_file(directory / REFERENCE_NAME, manifest)
    return samples_of_pack(read_reference(directory / REFERENCE_NAME), manifest)


def _list(content: bytes, directory: Path) -> None:
    entry = FileEntry("report", bytes_sha256(content), len(content))

    def listed(manifest: Manifest) -> Manifest:
        return replace(manifest, files={**manifest.files, REPORT_NAME: entry})

    update_manifest(directory, listed)
