"""What people and programs are told: progress of long tasks, text that a terminal shows as it is, log lines as JSON.

The runtime, the exporters, the models and the command line share it.
"""

import json
import logging
import sys
import time
from typing import Any, Protocol


class Progress(Protocol):
    """Called during long tasks; must return at once.

    Args:
        task: the current task, without numbers: "computing parity".
        share: share of this task that is done, 0..1; None if unknown.
    """

    def __call__(self, task: str, share: float | None = None) -> None:
        """Report the current task."""
        ...


def quiet(task: str, share: float | None = None) -> None:
    """Show nothing; the default."""


SPACES = "\u3000\u00a0\u200c\u200d"  # wide and fixed spaces, and the joiners that Persian and emoji are written with


def is_text(value: str) -> bool:
    """Whether a terminal shows text as it is: no control characters, nothing that turns the direction of writing."""
    return all(character.isprintable() or character in SPACES for character in value)


def visible(value: str, allowed: str = "\n\t") -> str:
    """Return text whose control characters are spelled out (``\\x1b``), but for those that are allowed."""
    if is_text(value):
        return value
    return "".join(c if is_text(c) or c in allowed else c.encode("unicode_escape").decode() for c in value)


def one_line(error: object, longest: int = 300) -> str:
    """Return what another library says in one line, without control characters and not too long."""
    text = " ".join(visible(str(error)).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def percent(value: "float | None", digits: int = 1) -> str:
    """Return a share as a percentage, a dash where unknown."""
    return "-" if value is None else f"{value:.{digits}%}"


def number(value: "float | None", digits: int = 2) -> str:
    """Return a number, a dash where unknown."""
    return "-" if value is None else f"{value:.{digits}f}"


def option_words(**options: Any) -> list[str]:
    """Return options of a command as they are typed, from their names and values; None and False are left out.

    >>> option_words(img_size=(224, 320), batch=8, no_ema=True, keep=0.75, seed=None)
    ['--img-size', '224x320', '--batch', '8', '--no-ema', '--keep', '0.75']
    """
    words = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if isinstance(value, tuple):
            words.append("x".join(map(str, value)))
        elif value is not True:
            words.append(f"{value:g}" if isinstance(value, float) else str(value))
    return words


def write_line(level: str, logger: str, message: str, when: float | None = None, **more: str) -> None:
    """Write a line: ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, and more keys."""
    now = time.time() if when is None else when
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03}Z"
    document = {"time": stamp, "level": level, "logger": logger, "message": message, **more}
    sys.stderr.write(json.dumps(document) + "\n")
    sys.stderr.flush()


class JsonHandler(logging.Handler):
    """Writes log messages in this way; an application may use it as well."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        write_line(record.levelname.lower(), record.name, record.getMessage(), record.created)
