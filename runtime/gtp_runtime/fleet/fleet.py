"""A fleet: the nodes of a cluster, at work for this process.

The cluster queues and places what is submitted, and does again what a lost node had. The rest is here: results in
order, few items ahead, which nodes may work, and what is said while none does.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from gtp_runtime.errors import FleetError
from gtp_runtime.fleet.cluster import DEVICE, Event, Node, Place, RayCluster, join
from gtp_runtime.fleet.node import Needs, call_sent, code_digests, names_digest, send

log = logging.getLogger(__name__)
Self = TypeVar("Self", bound="Fleet")  # typing.Self needs Python 3.11
T = TypeVar("T")
R = TypeVar("R")
Tell = Callable[[str], None]
WINDOW = 8  # items for each node that are taken before the first of their results is
SECONDS = 1.0  # between two looks at which nodes there are
PATIENCE = 10.0  # seconds in which nothing runs, before it is said what is waited for
AGAIN = 60.0  # seconds until it is said again
NO_DEVICE = (
    "no node of the cluster measures latency: start one with "
    f"ray start --address HOST:PORT --resources '{{\"{DEVICE}\": 1}}' on the device"
)


@dataclass(frozen=True)
class Report:
    """What became of the nodes.

    Attributes:
        counts: how many items each did, by its name.
        timed: likewise, how many calls each did as the device.
        lost: names of those that were lost.
        left_out: why nodes did nothing more, by name.
    """

    counts: dict[str, int] = field(default_factory=dict)
    timed: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def log_it(text: str) -> None:
    """Log what is waited for."""
    log.info("%s", text)


def connect(address: str, images: str | PathLike[str] | None = None, tell: Tell = log_it) -> "Fleet":
    """Return the nodes of a cluster, ready to work.

    Args:
        address: of the cluster's head, "HOST:PORT", or "auto" for the cluster that this machine is a node of.
        images: a folder of images. Nodes work only if they have it at the same path, with images of the same names.
        tell: called now and then with the nodes that are waited for, in words (default: they are logged).

    Raises:
        InputError: an address of another form.
        BackendMissingError: Ray is not installed.
        FleetError: no cluster is there, or it has another Ray or Python.
        ImageError: no images in the folder.
    """
    digest = None if images is None else (str(Path(images).resolve()), names_digest(str(images)))
    return Fleet(join(address), tell, digest)


class Fleet:
    """The nodes of a cluster; made by ``connect``, and to be closed.

    Functions and items are pickled; functions are those of modules that every node has.

    Args:
        cluster: where the nodes are.
        tell: called with the nodes that are waited for, in words.
        images: a folder that nodes must have, and its ``names_digest``; None asks for none.

    Attributes:
        trials: how many items are worth being worked on at a time: the number of nodes that worked at first.
    """

    def __init__(self, cluster: RayCluster, tell: Tell = log_it, images: tuple[str, str] | None = None) -> None:
        self.cluster, self.tell = cluster, tell
        self._images = images
        self._report = Report()
        self._nodes: dict[str, Node] = {}  # all that were ever there
        self._out: set[str] = set()
        self.trials = max(1, len(self._workers(self.alive())))

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, which ends what is still done there."""
        self.cluster.close()

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[tuple[T, R], None, None]:
        """Yield each item with its result, in order; an exception comes in the place of its item.

        Args:
            function: called once for each item, or again if the node that did so is lost.
            items: taken as nodes are free.

        Raises:
            FleetError: no node is left that can do it, or an item lost its process several times.
        """
        return self.map_with(partial(_same, function), items)

    def map_with(
        self, make: Callable[[], Callable[[T], R]], items: Iterable[T], window: int = WINDOW
    ) -> Generator[tuple[T, R], None, None]:
        """As ``map``, with a function that ``make`` makes once on each node; a node where it fails is left out."""
        return _Map[T](self, Needs(code_digests(), self._images), make, self.work_place, window).results(items)

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
        call = _Map[Any](self, Needs(code_digests()), partial(_same, call_sent), self.device_place, WINDOW)
        ((_, value),) = call.results([send(function, item)])
        result: R = value
        return result

    def check_device(self) -> None:
        """Raise ``FleetError`` if no node carries the resource ``gtp_device``, before work that needs one."""
        self.device_place(self.alive())

    def report(self) -> Report:
        """Return what each node did, which were lost, and which were left out and why."""
        return deepcopy(self._report)

    def alive(self) -> list[Node]:
        """Return the nodes that are alive, and take note of those that are no longer."""
        nodes = self.cluster.nodes()
        self._nodes |= {node.id: node for node in nodes}
        gone = self._nodes.keys() - {node.id for node in nodes}
        for name in sorted({self.name(node) for node in gone} - set(self._report.lost)):
            self._report.lost.append(name)
        return nodes

    def work_place(self, alive: list[Node]) -> Place:
        """Return where everything but latency is done: on all CPUs of the smallest node that works.

        Raises:
            FleetError: no node can do it.
        """
        able = self._workers(alive)
        if not able:
            raise FleetError(self._why_none())
        others = {node.id for node in alive if node.device} - {node.id for node in able}
        return Place(min(node.cpus for node in able), without=frozenset(self._out | others))

    def device_place(self, alive: list[Node]) -> Place:
        """Return where latency is measured, which stays.

        Raises:
            FleetError: no node carries the resource ``gtp_device``.
        """
        able = sorted((node for node in alive if node.device and node.id not in self._out), key=lambda node: node.name)
        if not able:
            raise FleetError(NO_DEVICE + self._became())
        return Place(able[0].cpus, min(1.0, able[0].device), able[0].id)

    def leave_out(self, node: str, why: str) -> None:
        """Ask nothing of a node any more."""
        self._out.add(node)
        self._report.left_out[self.name(node)] = why

    def count(self, node: str, place: Place) -> None:
        """Count an item that a node did, or what it did as the device."""
        counts = self._report.timed if place.device else self._report.counts
        counts[self.name(node)] = counts.get(self.name(node), 0) + 1

    def name(self, node: str) -> str:
        """Return the name of a node."""
        return self._nodes[node].name if node in self._nodes else node

    def _workers(self, alive: list[Node]) -> list[Node]:
        """Return the nodes for everything but latency. Devices work only where there is nothing else."""
        able = [node for node in alive if node.cpus and node.id not in self._out]
        return [node for node in able if not node.device] or able

    def _why_none(self) -> str:
        if self._report.left_out or self._report.lost:
            return f"no node of the cluster is left{self._became()}; start nodes, and run the command again"
        return "no node of the cluster has CPUs to use: start one with ray start --address HOST:PORT"

    def _became(self) -> str:
        """Say what became of the nodes."""
        reasons = [f"{name}: {why}" for name, why in self._report.left_out.items()]
        reasons += [f"lost: {', '.join(self._report.lost)}"] if self._report.lost else []
        return f" ({'; '.join(reasons)})" if reasons else ""


def _same(function: Callable[[T], R]) -> Callable[[T], R]:
    return function


@dataclass
class _Job(Generic[T]):
    """An item on its way.

    Attributes:
        item: the item.
        place: where it may be worked on.
        reference: stands for its events; None before it is submitted.
        node: id of the node where it has begun; "" before.
        outcome: its result, or why there is none; None before.
    """

    item: T
    place: Place | None = None
    reference: Any = None
    node: str = ""
    outcome: "Event | Exception | None" = None


class _Map(Generic[T]):
    """A function that is mapped over items."""

    def __init__(
        self,
        fleet: Fleet,
        needs: Needs,
        make: Callable[[], Callable[[T], Any]],
        find_place: Callable[[list[Node]], Place],
        window: int,
    ) -> None:
        self.fleet, self.needs, self.find_place, self.window = fleet, needs, find_place, window
        self.task = fleet.cluster.share(make)
        self.jobs: deque[_Job[T]] = deque()  # taken, and their results are not
        self.looked = float("-inf")
        self.since = time.monotonic()  # of nothing running
        self.told = float("-inf")
        self.nodes: list[Node] = []
        self.place = Place(0)

    def results(self, items: Iterable[T]) -> Generator[tuple[T, Any], None, None]:
        """Yield each item with its result, in order."""
        rest = iter(items)
        try:
            while self._take(rest):
                self._submit()
                while (outcome := self.jobs[0].outcome) is None:
                    self._collect()
                    self._submit()
                item = self.jobs.popleft().item
                if isinstance(outcome, Exception):
                    raise outcome
                yield item, outcome.value
        finally:
            for job in self._unfinished():
                self._cancel(job)

    def _unfinished(self) -> Iterator[_Job[T]]:
        return (job for job in self.jobs if job.outcome is None)

    def _take(self, rest: Iterator[T]) -> bool:
        """Take items, and return whether results are still to come."""
        while len(self.jobs) < self.window * max(1, len(self.nodes)):
            for item in rest:
                self.jobs.append(_Job(item))
                break
            else:
                break
        return bool(self.jobs)

    def _submit(self) -> None:
        """Submit what waits and is not where it may be, after a look at the nodes from time to time."""
        waiting = list(self._unfinished())
        if waiting and time.monotonic() - self.looked >= SECONDS and not self._look():
            return
        for job in waiting:
            if job.reference is None or (job.place != self.place and not self._runs(job)):
                self._cancel(job)
                job.place, job.node = self.place, ""
                job.reference = self.fleet.cluster.submit(self.place, self.needs, self.task, job.item)

    def _look(self) -> bool:
        """Look which nodes there are, and return whether one can go on; where none can, what is done comes first."""
        self.nodes, self.looked = self.fleet.alive(), time.monotonic()
        try:
            self.place = self.find_place(self.nodes)
        except FleetError:
            if self.jobs[0].outcome is None:
                raise
            return False
        return True

    def _runs(self, job: _Job[T]) -> bool:
        return job.node in {node.id for node in self.nodes}

    def _cancel(self, job: _Job[T]) -> None:
        if job.reference is not None:
            self.fleet.cluster.cancel(job.reference)

    def _collect(self) -> None:
        """Wait for events, and take those that are there."""
        owners = {job.reference: job for job in self._unfinished()}
        ready = self.fleet.cluster.wait(list(owners), SECONDS)
        for reference in ready:
            self._hear(owners[reference])
        if ready or any(map(self._runs, owners.values())):
            self.since = time.monotonic()
        else:
            self._tell_waiting()

    def _hear(self, job: _Job[T]) -> None:
        try:
            event = self.fleet.cluster.event(job.reference)
        except Exception as error:
            job.outcome = error
            return
        if event.kind == "begun":
            job.node = event.node
        elif event.kind == "unfit":
            self.fleet.leave_out(event.node, event.value)
            job.reference, job.node = None, ""
            self.looked = float("-inf")
        else:
            job.outcome = event
            self.fleet.count(event.node, self.place)

    def _tell_waiting(self) -> None:
        """Say, from time to time, that nothing runs."""
        now = time.monotonic()
        if now - self.since > PATIENCE and now - self.told > AGAIN:
            self.told = now
            names = ", ".join(sorted(node.name for node in self.nodes if self._is_meant(node)))
            self.fleet.tell(
                f"waiting for {names}: perhaps another run uses the CPUs there (ray status shows what is used)"
            )

    def _is_meant(self, node: Node) -> bool:
        return node.id == self.place.only if self.place.only else bool(node.cpus) and node.id not in self.place.without
