"""``--log-json``: what the console would show on stderr, as JSON, one document a line."""

from gtp_runtime.log_json import write_line

STYLES = {"red": "error", "yellow": "warning", "dim": "debug"}  # how the console shows these levels


def write_shown(text: str, style: str) -> None:
    """Write what the console would show in this style."""
    level = STYLES.get(style, "info")
    write_line(level, "gtp_export", text.removeprefix(f"{level}: ").removeprefix("note: "))
