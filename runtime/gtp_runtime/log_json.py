"""Log messages as JSON on stderr, one document a line, for programs that gather logs."""

import json
import logging
import sys
import time


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
