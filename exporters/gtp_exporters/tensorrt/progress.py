"""Shows how far a build is, and stops it when the user presses Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Progress = Callable[[str], None]


class Stop:
    """Set by Ctrl-C; TensorRT asks for it after every step."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, _signal: int, _frame: FrameType | None) -> None:
        """Remember that the user wants to stop: an exception cannot pass through TensorRT's own code."""
        self.asked = True


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Within, Ctrl-C sets ``Stop``; afterwards it is raised as ``KeyboardInterrupt``."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield stop
        return
    before = signal.signal(signal.SIGINT, stop.ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
    if stop.asked:
        raise KeyboardInterrupt


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
            return not stop.asked

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor
