"""A cluster in this process: every wait lets each node do one thing, and nodes can be taken away in between."""

from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from gtp_runtime.fleet.hands import Worker, code_digests
from gtp_runtime.fleet.nodes import LostError, Node


class Reference:
    """What stands for a result."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work: Callable[[], Any] | None = work
        self.outcome: tuple[Any, Exception | None] | None = None

    def run(self) -> None:
        assert self.work is not None
        try:
            self.outcome = self.work(), None
        except Exception as error:
            self.outcome = None, error


class FakeHand:
    """A process on a node."""

    def __init__(self, node: Node, worker: Worker) -> None:
        self.node, self.worker, self.queue = node, worker, deque[Reference]()
        self.done: list[Any] = []
        self.waiting = 0

    def _put(self, work: Callable[[], Any]) -> Reference:
        self.queue.append(Reference(work))
        self.waiting = max(self.waiting, len(self.queue))
        return self.queue[-1]

    def begin(self, task: str, make: Any) -> Reference:
        return self._put(lambda: self.worker.begin(task, make))

    def do(self, task: str, item: Any) -> Reference:
        def work() -> Any:
            self.done.append(item)
            return self.worker.do(task, item)

        return self._put(work)

    def end(self, task: str) -> Reference:
        self.worker.end(task)
        return Reference(lambda: None)

    def call(self, function: Callable[[Any], Any], item: Any) -> Reference:
        return self._put(lambda: function(item))


class FakeCluster:
    """Nodes by name; ``lose`` takes one away, ``add`` brings one."""

    def __init__(self, *names: str, device: str = "") -> None:
        self.alive = {name: Node(name, name, 2, float(name == device)) for name in names}
        self.hands: dict[str, FakeHand] = {}
        self.images: tuple[str, str] | None = None
        self.code = code_digests()
        self.busy: set[str] = set()  # nodes whose processes do not run yet
        self.closed = False

    def add(self, name: str) -> None:
        self.alive[name] = Node(name, name, 2)

    def lose(self, name: str, listed: bool = False) -> None:
        for reference in self.hands.pop(name).queue:
            reference.outcome = None, LostError(f"{name} is gone")
        if not listed:
            del self.alive[name]

    def nodes(self) -> list[Node]:
        return list(self.alive.values())

    def hire(self, node: Node) -> FakeHand:
        self.hands[node.id] = FakeHand(node, Worker(self.code, self.images))
        return self.hands[node.id]

    def dismiss(self, hand: Any) -> None:
        self.hands.pop(hand.node.id, None)

    def share(self, value: Any) -> Any:
        return value

    def wait(self, references: Collection[Reference], seconds: float) -> list[Reference]:
        there = [reference for reference in references if reference.outcome is not None]
        if not there:
            for hand in list(self.hands.values()):
                if hand.queue and hand.node.name not in self.busy:
                    hand.queue.popleft().run()
        return [reference for reference in references if reference.outcome is not None]

    def result(self, reference: Reference) -> Any:
        while reference.outcome is None:
            self.wait([reference], 0)
        value, error = reference.outcome
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        self.closed = True
