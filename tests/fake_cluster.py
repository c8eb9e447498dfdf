"""A cluster in this process, as Ray's: free nodes take what waits, and what a lost node had is done again elsewhere.

Every wait lets each node do one thing, and nodes can be taken away in between.
"""

from collections import deque
from collections.abc import Callable, Collection
from itertools import count
from typing import Any

from gtp_runtime.errors import FleetError, first_line
from gtp_runtime.fleet.cluster import RETRIES, Event, Node, Place, RayCluster
from gtp_runtime.fleet.node import Needs, Worker


class DiedError(Exception):
    """Raised by a function whose process dies."""


class Reference:
    """What is submitted."""

    def __init__(self, place: Place, work: Callable[[str, Worker], Event]) -> None:
        self.place, self.work = place, work
        self.node = ""
        self.losses = 0
        self.events: deque[Event | Exception] = deque()


class FakeCluster(RayCluster):
    """Nodes by name, which is their id; ``lose`` takes one away, ``add`` brings one."""

    def __init__(self, *names: str, device: str = "") -> None:
        self.alive = {name: Node(name, name, 2, float(name == device)) for name in names}
        self.workers = {name: Worker() for name in names}
        self.done: dict[str, list[Any]] = {name: [] for name in names}
        self.submitted: list[Reference] = []  # and neither done nor cancelled
        self.places: list[Place] = []
        self.most = 0
        self.busy: set[str] = set()  # nodes whose CPUs another run uses
        self.tasks = count()
        self.closed = False

    def add(self, name: str) -> None:
        self.alive[name], self.workers[name], self.done[name] = Node(name, name, 2), Worker(), []

    def lose(self, name: str) -> None:
        del self.alive[name]
        for reference in self.submitted:
            if reference.node == name:
                self._lose(reference, "the node is gone")

    def _lose(self, reference: Reference, why: str) -> None:
        reference.node = ""
        reference.losses += 1
        if reference.losses > RETRIES:
            reference.events.append(FleetError(f"an item lost its process {reference.losses} times: {why}"))

    def nodes(self) -> list[Node]:
        return list(self.alive.values())

    def share(self, make: Any) -> Any:
        return f"task {next(self.tasks)}", make

    def submit(self, place: Place, needs: Needs, task: Any, item: Any) -> Reference:
        def work(node: str, worker: Worker) -> Event:
            try:
                function = worker.function(needs, task[0], lambda: task[1])
            except Exception as error:
                return Event("unfit", node, first_line(error))
            self.done[node].append(item)
            return Event("done", node, function(item))

        self.submitted.append(Reference(place, work))
        self.places.append(place)
        self.most = max(self.most, len(self.submitted))
        return self.submitted[-1]

    def wait(self, references: Collection[Reference], seconds: float) -> list[Reference]:
        if not any(reference.events for reference in references):
            for node in list(self.alive.values()):
                self._step(node)
        return [reference for reference in references if reference.events]

    def _step(self, node: Node) -> None:
        """Go on with what a node has begun, or begin something."""
        waiting = [reference for reference in self.submitted if not reference.events]
        for reference in waiting:
            if reference.node == node.id:
                try:
                    reference.events.append(reference.work(node.id, self.workers[node.id]))
                except DiedError as error:
                    if reference.node:  # not lost with its node
                        self._lose(reference, str(error))
                except Exception as error:
                    reference.events.append(error)
                return
        for reference in waiting:
            if not reference.node and node.id not in self.busy and _fits(node, reference.place):
                reference.node = node.id
                reference.events.append(Event("begun", node.id))
                return

    def event(self, reference: Reference) -> Event:
        event = reference.events.popleft()
        if isinstance(event, Exception) or event.kind != "begun":
            self.cancel(reference)
        if isinstance(event, Exception):
            raise event
        return event

    def cancel(self, reference: Reference) -> None:
        if reference in self.submitted:
            self.submitted.remove(reference)

    def close(self) -> None:
        self.closed = True


def _fits(node: Node, place: Place) -> bool:
    named = node.id == place.only if place.only else node.id not in place.without
    return named and node.cpus >= place.cpus and node.device >= place.device
