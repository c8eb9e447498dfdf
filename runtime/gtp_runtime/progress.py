"""How long work says how far it is: one protocol for the runtime, the exporters, the models and the command line."""

from typing import Protocol


class Progress(Protocol):
    """Called while work goes on; must return at once.

    Args:
        task: what is being done, in words without numbers: "computing parity".
        share: how much of this task is done, 0..1; None where that is not known.
    """

    def __call__(self, task: str, share: float | None = None) -> None:
        """Take note of what is being done."""
        ...


def quiet(task: str, share: float | None = None) -> None:
    """Show nothing: the default of everything that takes a progress."""
