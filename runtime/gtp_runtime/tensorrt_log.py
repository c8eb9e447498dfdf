"""TensorRT's messages, kept instead of printed, so that an error can say what TensorRT said."""

from typing import Any

MOST = 100  # messages of a kind that are kept


def make_logger(trt: Any) -> Any:
    """Return a ``trt.ILogger`` whose ``warnings`` and ``errors`` are lists of messages."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps the latest warnings and errors in order: an engine may run for months."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            kinds = trt.ILogger.Severity
            kept = self.errors if severity in (kinds.INTERNAL_ERROR, kinds.ERROR) else self.warnings
            if kept is self.errors or severity == kinds.WARNING:
                kept.append(msg.strip())
                del kept[:-MOST]

    return Logger()
