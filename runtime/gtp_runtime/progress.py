"""Progress of long tasks: one protocol for the runtime, the exporters, the models and the command line."""

from typing import Protocol


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
