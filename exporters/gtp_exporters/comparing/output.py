"""The files of a comparison: compare.json with all rows, compare.md with the tables, compare.svg with the plot."""

import json
import os
from pathlib import Path

from gtp_exporters.comparing.page import page
from gtp_exporters.comparing.plot import plot
from gtp_exporters.comparing.rows import FORMAT, Comparison
from gtp_exporters.errors import OutputError
from gtp_runtime import atomic
from gtp_runtime.opening import read_regular

JSON_NAME, PAGE_NAME, PLOT_NAME = "compare.json", "compare.md", "compare.svg"
NAMES = (PLOT_NAME, PAGE_NAME, JSON_NAME)  # in the order in which they are written
LARGEST = 1 << 26  # bytes


def check_output(directory: Path) -> None:
    """Check that results can be written to a directory, at no cost.

    Raises:
        OutputError: it is a file, it cannot be written, or files of the user's have the names of ours.
    """
    place = next(place for place in (directory, *directory.parents) if place.exists())
    if not place.is_dir():
        raise OutputError(f"{place} is a file: -o names the directory of the results")
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(f"{place} cannot be written: choose another -o")
    standing = [name for name in NAMES if os.path.lexists(directory / name)]
    if standing and not _is_ours(directory / JSON_NAME):
        raise OutputError(
            f"{directory} holds {', '.join(standing)}, not written by gtp-export: choose another -o, or move it away"
        )


def write(comparison: Comparison, directory: Path) -> None:
    """Write all files, the JSON last, in place of earlier ones.

    Raises:
        OutputError: the disk fails.
        MissingPackageError: Jinja2 is not installed.
    """
    contents = {
        PLOT_NAME: plot(comparison),
        PAGE_NAME: page(comparison, PLOT_NAME),
        JSON_NAME: json.dumps(comparison.to_dict(), indent=1) + "\n",
    }
    for name in NAMES:
        try:
            atomic.write_bytes(directory / name, contents[name].encode())
        except OSError as error:
            raise OutputError(
                f"cannot write {directory / name}: {error.strerror or error}; choose another -o"
            ) from error


def _is_ours(path: Path) -> bool:
    try:
        return bool(json.loads(read_regular(path, LARGEST))["format"] == FORMAT)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
