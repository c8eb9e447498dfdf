"""TensorRT's messages, kept instead of printed, so that an error can say what TensorRT said."""

from typing import Any


def make_logger(trt: Any) -> Any:
    """Return a ``trt.ILogger`` whose ``warnings`` and ``errors`` are lists of messages."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps warnings and errors in order."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            kinds = trt.ILogger.Severity
            if severity in (kinds.INTERNAL_ERROR, kinds.ERROR):
                self.errors.append(msg.strip())
            elif severity == kinds.WARNING:
                self.warnings.append(msg.strip())

    return Logger()
