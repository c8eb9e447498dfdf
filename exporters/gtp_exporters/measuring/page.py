"""The files of a comparison: compare.json with all rows, compare.md with the tables, compare.svg with the plot."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from gtp_exporters.measuring.comparison import FORMAT, Comparison
from gtp_exporters.measuring.plot import plot_comparison
from gtp_exporters.measuring.table import COMPARED, WORDS, data, markdown, noise_note, plain, shown, title
from gtp_runtime import atomic
from gtp_runtime.errors import OutputError
from gtp_runtime.opening import read_regular

JSON_NAME, PAGE_NAME, PLOT_NAME = "compare.json", "compare.md", "compare.svg"
NAMES = (PLOT_NAME, PAGE_NAME, JSON_NAME)  # in the order in which they are written
OURS = FORMAT.rpartition(" ")[0]
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


def write_comparison(comparison: Comparison, directory: Path) -> None:
    """Write all files, the JSON last, in place of earlier ones.

    Raises:
        OutputError: the disk fails.
        MissingPackageError: Jinja2 is not installed.
    """
    contents = {
        PLOT_NAME: plot_comparison(comparison),
        PAGE_NAME: comparison_page(comparison),
        JSON_NAME: json.dumps(comparison.to_dict(), indent=1) + "\n",
    }
    for name in NAMES:
        try:
            atomic.write_bytes(directory / name, contents[name].encode())
        except OSError as error:
            raise OutputError(
                f"cannot write {directory / name}: {error.strerror or error}; choose another -o"
            ) from error


def comparison_page(comparison: Comparison) -> str:
    """Return the tables of a comparison as a page in Markdown."""
    return "\n".join(_lines(comparison)) + "\n"


def _lines(comparison: Comparison) -> Iterator[str]:
    yield f"# {plain(comparison.title)}: methods compared\n"
    yield f"{plain(data(comparison))}. Latency: of {comparison.rounds} rounds, the one with the median ratio.\n"
    yield f"![Divergence and top-1 against latency]({PLOT_NAME})\n"
    columns = shown(COMPARED, comparison.rows)
    for backend, precision in comparison.runs():
        yield f"## {plain(title(comparison, backend, precision))}\n"
        yield from markdown(columns, comparison.of(backend, precision))
        yield ""
    yield WORDS
    if note := noise_note(comparison.rows):
        yield f"\nNoise: {note}."
    if comparison.sources:
        yield "\nPublished figures, top-1 in percent:\n"
        yield from (f"- {plain(name)}: {plain(source)}" for name, source in comparison.sources.items())
    if comparison.skipped:
        yield "\nNot compared:\n"
        yield from (f"- {plain(entry.what)}: {plain(entry.why)}" for entry in comparison.skipped)
    yield "\nMade by `gtp-export compare`. To compare machines, use ratios, not milliseconds."


def _is_ours(path: Path) -> bool:
    try:
        return str(json.loads(read_regular(path, LARGEST))["format"]).startswith(OURS)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
