"""Shows how far a build is, and stops it when the user presses Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Progress = Callable[[str], None]


class Stop:
    """The signal by which somebody asked to stop; TensorRT looks for it after every step."""

    def __init__(self) -> None:
        self.asked: int | None = None

    def ask(self, number: int, _frame: FrameType | None) -> None:
        """Remember it: an exception cannot pass through TensorRT's own code."""
        self.asked = number


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Within, Ctrl-C and SIGTERM set ``Stop``; afterwards they end the program as they would have."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.asked == signal.SIGINT:
        raise KeyboardInterrupt
    if stop.asked is not None:
        raise SystemExit(128 + stop.asked)


def watch(trt: Any, config: Any, progress: Progress, stop: Stop) -> Any:
    """Attach a progress monitor where TensorRT has them; keep what is returned until the build is over."""
    if not hasattr(trt, "IProgressMonitor") or not hasattr(config, "progress_monitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Tells the running phase and its step in words."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            self.steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(f"building the engine: {phase_name}, {step + 1} of {self.steps.get(phase_name, step + 1)}")
            return stop.asked is None

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor
