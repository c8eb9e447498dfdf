"""Output of commands: tables and progress for people, one JSON document for programs."""

import json
import logging
import os
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gtp_runtime.errors import RandomWeightsWarning
from gtp_runtime.messages import JsonHandler, Progress, quiet, visible, write_line

if TYPE_CHECKING:
    from rich.progress import Task

PACKAGES = ("gtp_runtime", "gtp_models", "gtp_exporters", "gtp_export")
STYLES = {"red": "error", "yellow": "warning", "dim": "debug"}  # the levels of what is shown in these styles
LOG_SECONDS = 30.0  # between two lines of progress in a log


class _Console(Console):
    """Shows text from files as it is: no markup of rich's in it counts, and control characters are spelled out."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Write as rich does."""
        if self.stderr and Verbosity.log_json:
            level, text = STYLES.get(str(options.get("style", "")), "info"), " ".join(map(str, objects))
            write_line(level, PACKAGES[-1], text.removeprefix(f"{level}: ").removeprefix("note: "))
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


def _set_verbose(value: bool) -> bool:
    Verbosity.verbose = Verbosity.verbose or value
    if value:
        show_logs()
    return value


def _set_log_json(value: bool) -> bool:
    Verbosity.log_json = Verbosity.log_json or value
    if value:
        show_logs(logging.INFO)
    return value


def _set_quiet(value: bool) -> bool:
    Verbosity.quiet = Verbosity.quiet or value
    return value


def set_verbosity(
    verbose: Annotated[
        bool,
        typer.Option(
            "-v", "--verbose", callback=_set_verbose, help="Show log messages, warnings of libraries, and tracebacks."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", callback=_set_quiet, help="Show no progress.")] = False,
    log_json: Annotated[
        bool,
        typer.Option(
            "--log-json",
            callback=_set_log_json,
            is_eager=True,
            help="Write log messages, notes and errors to stderr as JSON lines; -v adds debug messages.",
        ),
    ] = False,
) -> None:
    """The options of all commands; each acts when it is read, so that errors of later options are shown by it."""


def emit(document: dict[str, Any]) -> None:
    """Write one JSON document to stdout; paths are strings in it."""
    sys.stdout.write(json.dumps(document, indent=1, default=os.fspath) + "\n")


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


def next_command(*words: object) -> None:
    """Print the command that usually comes next, as a shell takes it."""
    out.print(f"next: {shlex.join(['gtp-export', *map(str, words)])}", markup=False)


def then_convert(words: Sequence[str]) -> None:
    """Print the ``convert`` that follows an export, with options; nothing without."""
    if words:
        out.print(f"then: gtp-export convert DIR {shlex.join(words)}", markup=False)


def note(text: str) -> None:
    """Write a message that is not part of the result to stderr."""
    err.print(text, markup=False)


@contextmanager
def progress(label: str, images: int = 0, unit: str = "images", seconds: float | None = None) -> Iterator[Progress]:
    """Yield a ``Progress`` that shows the current task and its time left on stderr, or nothing with ``-q``.

    On a terminal there is a bar, elsewhere a line a task, and twice a minute another where the share done is known.

    Args:
        label: what a terminal shows before the first task.
        images: how many images the task goes through, where it does: their rate is shown as well.
        unit: what is counted instead of images.
        seconds: after which the work ends in any case.
    """
    if Verbosity.quiet:
        yield quiet
        return
    shown = _Shown(label, images, unit, seconds)
    with shown.bars:
        yield shown.tell


class _Shown:
    """The task that runs: rich's progress, which also knows rate and time left where nothing is drawn."""

    def __init__(self, label: str, images: int, unit: str, seconds: float | None) -> None:
        from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bars

        pace = self.pace

        class Pace(ProgressColumn):
            """Share, count, rate and time left."""

            def render(self, task: "Task") -> Text:
                return Text(pace(task))

        self.drawn = err.is_terminal and not Verbosity.log_json
        text = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), text, BarColumn(20), Pace())
        self.bars: Bars = Bars(*columns, console=err, transient=True, disable=not self.drawn)
        self.images, self.unit = images, unit
        self.end = None if seconds is None else time.monotonic() + seconds
        self.task = self.bars.add_task(label, total=None)
        self.named: set[str] = set()
        self.told = time.monotonic()

    def tell(self, task: str, share: float | None = None) -> None:
        """Show a task, and the share of it that is done."""
        shown = self.bars.tasks[0]
        total = float(self.images or 100)
        again = task != shown.description or share is None or shown.total is None or share * total < shown.completed
        if again:  # another task, or the same images are gone through again: its rate starts from here
            self.bars.reset(self.task, description=task, total=None if share is None else total)
        self.bars.update(self.task, completed=(share or 0.0) * total)
        self._log(task, share)

    def _log(self, name: str, share: float | None) -> None:
        if self.drawn:
            return
        if name not in self.named:
            self.named.add(name)
            note(name)
        elif share is not None and time.monotonic() - self.told >= LOG_SECONDS:
            self.told = time.monotonic()
            note(f"{name} {self.pace(self.bars.tasks[0])}")

    def pace(self, task: "Task") -> str:
        """Return "25%, 12,400 of 50,000 images, 431 a second, 0:01:27 left"; less where it is not known."""
        if task.total is None:
            return ""
        parts = [f"{task.percentage:.0f}%"]
        if self.images:
            parts.append(f"{round(task.completed):,} of {self.images:,} {self.unit}")
        if self.images and task.speed:
            parts.append(f"{task.speed:.3g} a second")
        if task.speed and task.time_remaining is not None:
            left = task.time_remaining
            left = left if self.end is None else max(0.0, min(left, self.end - time.monotonic()))
            parts.append(f"{timedelta(seconds=round(left))} left")
        return ", ".join(parts)


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
