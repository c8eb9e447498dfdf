"""``--log-json``: what a command says on stderr as JSON, one document a line, for programs that gather logs."""

import json
import sys
import time

STYLES = {"red": "error", "yellow": "warning", "dim": "debug"}  # how the console shows these levels


def write_line(level: str, logger: str, message: str, when: float | None = None, **more: str) -> None:
    """Write a line: ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, and more keys."""
    now = time.time() if when is None else when
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03}Z"
    document = {"time": stamp, "level": level, "logger": logger, "message": message, **more}
    sys.stderr.write(json.dumps(document) + "\n")
    sys.stderr.flush()


def write_shown(text: str, style: str) -> None:
    """Write what the console would show in this style."""
    level = STYLES.get(style, "info")
    write_line(level, "gtp_export", text.removeprefix(f"{level}: ").removeprefix("note: "))
