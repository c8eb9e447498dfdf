"""Shows how far a build is, and stops it when the user presses Ctrl-C."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from gtp_runtime.messages import Progress


class Stop:
    """The signal by which somebody asked to stop; TensorRT looks for it after every step.

    Python's own handlers wait until TensorRT gives the main thread back, so the signal is read from the pipe into which
    Python writes it at once (``signal.set_wakeup_fd``). An exception could not pass through TensorRT's code either.
    """

    def __init__(self, pipe: int | None = None) -> None:
        self._pipe, self._asked = pipe, 0

    @property
    def asked(self) -> int:
        """The number of the signal; 0 while there was none."""
        if not self._asked and self._pipe is not None:
            with suppress(BlockingIOError):
                self._asked = os.read(self._pipe, 1)[0]
        return self._asked


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Within, Ctrl-C and SIGTERM are kept in ``Stop``; afterwards they end the program as they would have."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield Stop()
        return
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    stop, former = Stop(reading), signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
        asked = stop.asked
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former)
        os.close(reading)
        os.close(writing)
    if asked == signal.SIGINT:
        raise KeyboardInterrupt
    if asked:
        raise SystemExit(128 + asked)


def watch(trt: Any, config: Any, progress: Progress, stop: Stop) -> Any:
    """Attach a progress monitor where TensorRT has them; keep what is returned until the build is over."""
    if not hasattr(trt, "IProgressMonitor") or not hasattr(config, "progress_monitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Tells the running phase, and the share of it that is done."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            self.steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(f"building the engine: {phase_name}", (step + 1) / max(step + 1, self.steps.get(phase_name, 0)))
            return not stop.asked

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor
