"""The nodes of a cluster, and what is asked of whoever gives access to them."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

DEVICE = "gtp_device"  # resource of the nodes where latency is measured


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        id: its id in the cluster; a node that comes back has another one.
        name: its name, in words.
        cpus: CPUs that the cluster may use there.
        device: how much of the resource ``gtp_device`` it carries.
    """

    id: str
    name: str
    cpus: int
    device: float = 0.0


class LostError(Exception):
    """A node, or the process on it, is gone: what it was asked for must be done again."""


class Hand(Protocol):
    """The process on a node; what is asked of it is done one after another. A method returns a reference at once."""

    def begin(self, task: str, make: Any) -> Any:
        """Let ``make`` make the function of a task."""
        ...

    def do(self, task: str, item: Any) -> Any:
        """Call the function of a task."""
        ...

    def end(self, task: str) -> Any:
        """Forget a task."""
        ...

    def call(self, function: Callable[[Any], Any], item: Any) -> Any:
        """Call a function."""
        ...


class Cluster(Protocol):
    """Access to the nodes; references stand for results that are not there yet."""

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive."""
        ...

    def hire(self, node: Node) -> Hand:
        """Start a process on a node; it need not run yet."""
        ...

    def dismiss(self, hand: Hand) -> None:
        """End a process."""
        ...

    def share(self, value: Any) -> Any:
        """Put a value where all nodes find it; return a reference."""
        ...

    def wait(self, references: Collection[Any], seconds: float) -> list[Any]:
        """Return those that are there, once one is or the time is over."""
        ...

    def result(self, reference: Any) -> Any:
        """Return what a reference stands for.

        Raises:
            LostError: its process is gone.
            Exception: what the call raised.
        """
        ...

    def close(self) -> None:
        """Leave the cluster."""
        ...
