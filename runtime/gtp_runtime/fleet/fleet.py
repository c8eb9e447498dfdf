"""A fleet: the nodes of a cluster, at work for this process."""

from collections.abc import Callable, Generator, Iterable
from copy import deepcopy
from functools import partial
from types import TracebackType
from typing import TypeVar

from gtp_runtime.errors import FleetError, first_line
from gtp_runtime.fleet.crew import Crew, Report, Tell, log_it
from gtp_runtime.fleet.nodes import DEVICE, Cluster, LostError
from gtp_runtime.fleet.parcels import call_sent, send
from gtp_runtime.fleet.spreading import LOSSES, SECONDS, WINDOW, spread

Self = TypeVar("Self", bound="Fleet")  # typing.Self needs Python 3.11
T = TypeVar("T")
R = TypeVar("R")
NO_DEVICE = (
    "no node of the cluster measures latency: start one with "
    f"ray start --address HOST:PORT --resources '{{\"{DEVICE}\": 1}}' on the device"
)


class Fleet:
    """The nodes of a cluster; made by ``connect``, and to be closed.

    Functions and items are pickled; functions are those of modules that every node has.

    Attributes:
        trials: how many items are worth being worked on at a time: the number of nodes that worked at first.
    """

    def __init__(self, cluster: Cluster, tell: Tell = log_it) -> None:
        self._crew = Crew(cluster, tell)
        self.trials = max(1, len(self._crew.work_nodes()))

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes on the nodes, and leave the cluster."""
        self._crew.close()
        self._crew.cluster.close()

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[tuple[T, R], None, None]:
        """Yield each item with its result, in order; an exception comes in the place of its item.

        Args:
            function: called once for each item, or again if the node that did so is lost.
            items: taken as nodes are free.

        Raises:
            FleetError: no node is left that can do it, or an item lost its process several times.
        """
        return spread(self._crew, partial(_same, function), items)

    def map_with(
        self, make: Callable[[], Callable[[T], R]], items: Iterable[T], window: int = WINDOW
    ) -> Generator[tuple[T, R], None, None]:
        """As ``map``, with a function that ``make`` makes once on each node; a node where it fails is left out."""
        return spread(self._crew, make, items, window)

    def on_device(self, function: Callable[[T], R], item: T) -> R:
        """Call a function on a node that carries the resource ``gtp_device``, with nothing else of ours there.

        It is always the same node while that is alive, so that latencies can be compared. Where ``item`` is a
        dataclass with ``files``, paths of files of artifact directories, they are sent with it, and the function gets
        the paths of copies.

        Raises:
            ManifestError: one of these files is not what its manifest says.
            FleetError: no node carries it, or the call lost its process several times.
            Exception: what the function raised.
        """
        crew, sent = self._crew, send(function, item)
        for _ in range(LOSSES):
            devices = crew.device_nodes()
            if not devices:
                break
            hand = crew.hand(devices[0])
            while not crew.has_started(devices[0], SECONDS):
                crew.tell_waiting()
            try:
                value: R = crew.cluster.result(hand.call(call_sent, sent))
            except LostError as error:
                crew.lose(devices[0], first_line(error))
            else:
                crew.count(devices[0], timed=True)
                return value
        raise FleetError(NO_DEVICE + _lost(crew.report))

    def check_device(self) -> None:
        """Raise ``FleetError`` if no node carries the resource ``gtp_device``, before work that needs one."""
        if not self._crew.device_nodes():
            raise FleetError(NO_DEVICE)

    def report(self) -> Report:
        """Return what each node did, which were lost, and which were left out and why."""
        return deepcopy(self._crew.report)


def _lost(report: Report) -> str:
    return f" (lost: {', '.join(report.lost)})" if report.lost else ""


def _same(function: Callable[[T], R]) -> Callable[[T], R]:
    return function
