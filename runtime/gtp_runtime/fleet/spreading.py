"""Hands items out to the nodes of a cluster: results come in order, and what a lost node had is done again."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, TypeVar

from gtp_runtime.errors import FleetError, first_line
from gtp_runtime.fleet.crew import Crew
from gtp_runtime.fleet.nodes import Hand, LostError, Node

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2  # items that a node has: one that it does, one that waits
WINDOW = 8  # items for each node that are taken before the first of their results is
LOSSES = 3  # times that an item may lose its process
SECONDS = 1.0  # between two looks at which nodes there are

_tasks = count()


@dataclass
class _Job(Generic[T]):
    """An item on its way.

    Attributes:
        number: its place.
        item: the item.
        done: whether its outcome is known.
        value, error: its result, or why there is none.
        losses: how often its process was lost.
    """

    number: int
    item: T
    done: bool = False
    value: Any = None
    error: Exception | None = None
    losses: int = 0


@dataclass
class _Post:
    """A node at work: ``ready`` once its process has begun."""

    node: Node
    hand: Hand
    ready: bool = False
    jobs: dict[Any, "_Job[Any] | None"] = field(default_factory=dict)  # by reference; None is the beginning


def spread(
    crew: Crew, make: Callable[[], Callable[[T], R]], items: Iterable[T], window: int = WINDOW
) -> Generator[tuple[T, R], None, None]:
    """Yield each item with its result, in order; an exception comes in the place of its item.

    Args:
        crew: the nodes.
        make: called once on each node; what it returns is called with each item, one at a time.
        items: taken as nodes are free, at most ``window`` for each node before their results are.
        window: see ``items``.

    Raises:
        FleetError: no node is left that can do it, or an item lost its process ``LOSSES`` times.
        Exception: what the function raised.
    """
    work: _Spread[T] = _Spread(crew, crew.cluster.share(make), iter(items), window)
    try:
        yield from work.results()
    finally:
        work.end()


class _Spread(Generic[T]):
    def __init__(self, crew: Crew, make: Any, items: Iterator[T], window: int) -> None:
        self.crew, self.make, self.items, self.window = crew, make, items, window
        self.task = f"task {next(_tasks)}"
        self.posts: dict[str, _Post] = {}
        self.jobs: deque[_Job[T]] = deque()  # taken, and their results are not
        self.again: list[_Job[T]] = []  # lost, and not handed out again
        self.taken = 0
        self.exhausted = False
        self.looked = float("-inf")

    def results(self) -> Iterator[tuple[T, Any]]:
        while self.jobs or not self.exhausted:
            self._man()
            self._hand_out()
            if self.jobs and self.jobs[0].done:
                job = self.jobs.popleft()
                if job.error is not None:
                    raise job.error
                yield job.item, job.value
            elif self.jobs or not self.exhausted:
                self._collect()

    def _man(self) -> None:
        """Let processes begin on nodes that have none, from time to time."""
        if self.posts and time.monotonic() - self.looked < SECONDS:
            return
        time.sleep(max(0.0, SECONDS - (time.monotonic() - self.looked)))  # nodes that are gone stay listed for a while
        self.looked = time.monotonic()
        for node in self.crew.work_nodes():
            if node.id not in self.posts:
                post = self.posts[node.id] = _Post(node, self.crew.hand(node))
                post.jobs[post.hand.begin(self.task, self.make)] = None

    def _hand_out(self) -> None:
        ready = [post for post in self.posts.values() if post.ready]
        while free := [post for post in ready if len(post.jobs) < AHEAD]:
            job = self._next(len(ready))
            if job is None:
                return
            post = min(free, key=lambda post: len(post.jobs))
            post.jobs[post.hand.do(self.task, job.item)] = job

    def _next(self, nodes: int) -> _Job[T] | None:
        if self.again:
            self.again.sort(key=lambda job: -job.number)
            return self.again.pop()
        if self.exhausted or len(self.jobs) >= self.window * nodes:
            return None
        for item in self.items:
            self.jobs.append(_Job(self.taken, item))
            self.taken += 1
            return self.jobs[-1]
        self.exhausted = True
        return None

    def _collect(self) -> None:
        """Wait for a result, and take those that are there."""
        if not self.posts:
            raise FleetError(self.crew.why_none())
        owners = {reference: post for post in self.posts.values() for reference in post.jobs}
        found = self.crew.cluster.wait(list(owners), SECONDS)
        self.crew.tell_waiting()
        for reference in found:
            post = owners[reference]
            if reference in post.jobs:  # a loss takes all that a node had
                self._take(post, reference)

    def _take(self, post: _Post, reference: Any) -> None:
        try:
            value = self.crew.cluster.result(reference)
        except LostError as error:
            self._lose(post, error)
            return
        except Exception as error:
            job = post.jobs.pop(reference)
            if job is None:
                self.crew.leave_out(post.node, first_line(error))
                del self.posts[post.node.id]
            else:
                job.done, job.error = True, error
            return
        job = post.jobs.pop(reference)
        if job is None:
            post.ready = True
        else:
            job.done, job.value = True, value
            self.crew.count(post.node)

    def _lose(self, post: _Post, error: LostError) -> None:
        for job in filter(None, post.jobs.values()):
            job.losses += 1
            if job.losses < LOSSES:
                self.again.append(job)
            else:
                job.done, job.error = True, FleetError(f"an item lost its process {LOSSES} times: {first_line(error)}")
        post.jobs.clear()
        del self.posts[post.node.id]
        self.crew.lose(post.node, first_line(error))

    def end(self) -> None:
        for post in self.posts.values():
            post.hand.end(self.task)
