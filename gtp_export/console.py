"""Output of commands: tables and progress for people, one JSON document for programs."""

import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gtp_export.log_json import write_shown
from gtp_export.pace import Pace
from gtp_runtime.errors import RandomWeightsWarning
from gtp_runtime.log_json import JsonHandler, write_line
from gtp_runtime.progress import Progress, quiet
from gtp_runtime.text import visible

PACKAGES = ("gtp_runtime", "gtp_models", "gtp_exporters", "gtp_export")


class _Console(Console):
    """Shows text from files as it is: no markup of rich's in it counts, and control characters are spelled out."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Write as rich does."""
        if self.stderr and Verbosity.log_json:
            write_shown(" ".join(map(str, objects)), str(options.get("style", "")))
            return
        shown = (visible(entry) if isinstance(entry, str) else entry for entry in objects)
        super().print(*shown, **{"markup": False, **options})


WIDE = None if sys.stdout.isatty() else 200  # a file or a pipe has no edge to wrap at
out = _Console(highlight=False, soft_wrap=True, width=WIDE)
err = _Console(stderr=True, highlight=False, soft_wrap=True)
_shown: set[str] = set()


class Verbosity:
    """Whether ``-v``, ``-q`` and ``--log-json`` were given."""

    verbose = False
    quiet = False
    log_json = False


def set_verbose(value: bool) -> bool:
    """Show log messages, warnings of libraries and full tracebacks."""
    Verbosity.verbose = Verbosity.verbose or value
    if value:
        show_logs()
    return value


def set_log_json(value: bool) -> bool:
    """Show log messages, notes and errors as JSON."""
    Verbosity.log_json = Verbosity.log_json or value
    if value:
        show_logs(logging.INFO)
    return value


def set_quiet(value: bool) -> bool:
    """Show no progress."""
    Verbosity.quiet = Verbosity.quiet or value
    return value


def emit(document: dict[str, Any]) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


def emit_line(document: dict[str, Any]) -> None:
    """Write one JSON document to stdout as a line, at once."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to stdout; columns of numbers are right-aligned."""
    made = Table(
        title=Text(visible(title)) if title else None,
        title_justify="left",
        title_style="bold",
        show_header=any(columns),
        box=None,
    )
    made.pad_edge, made.padding = False, (0, 3, 0, 0)
    for index, column in enumerate(columns):
        numeric = all(row[index].lstrip("-")[:1].isdigit() or row[index] in ("", "-") for row in rows)
        made.add_column(Text(column), justify="right" if numeric else "left", header_style="dim")
    for row in rows:
        made.add_row(*(Text(visible(cell)) for cell in row))
    out.print(made)


def note(text: str) -> None:
    """Write a message that is not part of the result to stderr."""
    err.print(text, markup=False)


@contextmanager
def progress(label: str, images: int = 0, unit: str = "images", seconds: float | None = None) -> Iterator[Progress]:
    """Yield a ``Progress`` that shows the current task on stderr: a status line on a terminal, else one line per
    task, nothing with ``-q``.

    Args:
        label: what a terminal shows before the first task.
        images: how many images the task goes through, where it does: their rate and the time left are shown as well,
            elsewhere than on a terminal twice a minute.
        unit: what is counted instead of images.
        seconds: after which the work ends in any case.
    """
    if Verbosity.quiet:
        yield quiet
    elif err.is_terminal and not Verbosity.log_json:
        pace = Pace(images, unit=unit, seconds=seconds)
        with err.status(Text(label)) as status:
            yield lambda task, share=None: status.update(Text(_said(task, share, pace)))
    else:
        yield _line_a_task(Pace(images, unit=unit, seconds=seconds))


def _said(task: str, share: float | None, pace: Pace) -> str:
    return task if share is None else f"{task} {share:.0%}{pace.said(share)}"


def _line_a_task(pace: Pace) -> Progress:
    told: set[str] = set()

    def tell(task: str, share: float | None = None) -> None:
        if task not in told:
            told.add(task)
            note(task)
        elif share is not None and pace.is_due():
            note(_said(task, share, pace))

    return tell


class LogHandler(JsonHandler):
    """Shows the log messages of our packages on stderr, with ``-v`` or ``--log-json``."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        if Verbosity.log_json:
            super().emit(record)
        elif Verbosity.verbose:
            err.print(f"{record.name}: {record.getMessage()}", style="dim", markup=False)


_handler = LogHandler()


def show_logs(level: int = logging.DEBUG) -> None:
    """Show the log messages of our packages, from this level on, or more where that was asked for."""
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.addHandler(_handler)  # once: adding it again does nothing
        logger.setLevel(logging.DEBUG if Verbosity.verbose else level)


def show_error(error: Exception, text: str) -> None:
    """Show an error in one line, and with ``-v`` where it was raised."""
    if Verbosity.verbose and Verbosity.log_json:
        write_line("error", PACKAGES[-1], text, traceback="".join(traceback.format_exception(error)))
        return
    if Verbosity.verbose:
        traceback.print_exception(error)
    err.print(f"error: {text}", style="red", markup=False)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001 - the signature of warnings.showwarning
    line: str | None = None,
) -> None:
    """Show each of our own warnings once, on one line; those of libraries only with ``-v``."""
    text = str(message)
    if issubclass(category, RandomWeightsWarning):
        if category.__name__ not in _shown:
            err.print(f"warning: {text}", style="yellow", markup=False)
        _shown.add(category.__name__)
    elif Verbosity.verbose:
        note(warnings.formatwarning(message, category, filename, lineno, line).rstrip())
