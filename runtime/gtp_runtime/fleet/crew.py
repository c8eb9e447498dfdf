"""The processes on the nodes, and which nodes may work."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gtp_runtime.fleet.nodes import Cluster, Hand, Node

log = logging.getLogger(__name__)
Tell = Callable[[str], None]
LOSSES = 3  # processes that a node may lose before it is left out
PATIENCE = 10.0  # seconds for a process to start, before it is said that it is waited for
AGAIN = 60.0  # seconds until it is said again


def log_it(text: str) -> None:
    """Log what is waited for."""
    log.info("%s", text)


@dataclass
class _Hired:
    """A process of a node; ``started`` is a reference whose result is there once it runs."""

    node: Node
    hand: Hand
    started: Any
    since: float = field(default_factory=time.monotonic)
    told: float = float("-inf")


@dataclass(frozen=True)
class Report:
    """What became of the nodes.

    Attributes:
        counts: how many items each did, by its name.
        timed: likewise, how many calls each did as the device.
        lost: names of those that were lost, or whose process was.
        left_out: why nodes did nothing more, by name.
    """

    counts: dict[str, int] = field(default_factory=dict)
    timed: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


class Crew:
    """One process for each node that works.

    Args:
        cluster: where the nodes are.
        tell: called with the nodes that are waited for, in words.

    Attributes:
        cluster: where the nodes are.
        report: what became of them.
    """

    def __init__(self, cluster: Cluster, tell: Tell = log_it) -> None:
        self.cluster = cluster
        self.report = Report()
        self._tell = tell
        self._hands: dict[str, _Hired] = {}
        self._losses: dict[str, int] = {}
        self._out: set[str] = set()

    def work_nodes(self) -> list[Node]:
        """Return the nodes for everything but latency. Devices work only where there is nothing else."""
        able = [node for node in self._alive() if node.cpus and node.id not in self._out]
        return [node for node in able if not node.device] or able

    def device_nodes(self) -> list[Node]:
        """Return the nodes where latency is measured, in an order that stays."""
        able = [node for node in self._alive() if node.device and node.id not in self._out]
        return sorted(able, key=lambda node: (node.name, node.id))

    def hand(self, node: Node) -> Hand:
        """Return the process of a node."""
        if node.id not in self._hands:
            hand = self.cluster.hire(node)
            self._hands[node.id] = _Hired(node, hand, hand.call(_start, None))
        return self._hands[node.id].hand

    def has_started(self, node: Node, seconds: float) -> bool:
        """Wait so long for the process of a node to run, and return whether it does, or is lost."""
        hired = self._hands.get(node.id)
        return hired is None or bool(self.cluster.wait([hired.started], seconds))

    def tell_waiting(self) -> None:
        """Say, from time to time, which processes do not run yet."""
        now = time.monotonic()
        slow = [hired for hired in self._hands.values() if now - hired.since > PATIENCE and now - hired.told > AGAIN]
        waiting = [hired for hired in slow if not self.has_started(hired.node, 0.0)]
        for hired in slow:
            hired.told = now if hired in waiting else float("inf")  # one that runs is not asked again
        if waiting:
            names = ", ".join(hired.node.name for hired in waiting)
            self._tell(f"waiting for {names}: perhaps another run uses the CPUs there (ray status shows what is used)")

    def count(self, node: Node, timed: bool = False) -> None:
        """Count an item that a node did, or what it did as the device."""
        counts = self.report.timed if timed else self.report.counts
        counts[node.name] = counts.get(node.name, 0) + 1

    def lose(self, node: Node, why: str) -> None:
        """Take note that a node, or its process, is gone."""
        self._note_lost(node)
        self._losses[node.id] = self._losses.get(node.id, 0) + 1
        if self._losses[node.id] >= LOSSES:
            self.leave_out(node, f"its process was lost {LOSSES} times: {why}")

    def leave_out(self, node: Node, why: str) -> None:
        """Ask nothing of a node any more."""
        self._drop(node)
        self._out.add(node.id)
        self.report.left_out[node.name] = why

    def why_none(self) -> str:
        """Say why no node works."""
        reasons = "; ".join(f"{name}: {why}" for name, why in self.report.left_out.items())
        if reasons:
            return f"no node of the cluster can do this: {reasons}"
        if self.report.lost:
            lost = ", ".join(self.report.lost)
            return f"no node of the cluster is left, lost: {lost}; start nodes, and run the command again"
        return "no node of the cluster has CPUs to use: start one with ray start --address HOST:PORT"

    def close(self) -> None:
        """End all processes."""
        for hired in self._hands.values():
            self.cluster.dismiss(hired.hand)
        self._hands.clear()

    def _drop(self, node: Node) -> None:
        found = self._hands.pop(node.id, None)
        if found is not None:
            self.cluster.dismiss(found.hand)

    def _alive(self) -> list[Node]:
        """Return the nodes that are alive, and take note of those at work that are no longer."""
        alive = self.cluster.nodes()
        for hired in list(self._hands.values()):
            if hired.node.id not in {other.id for other in alive}:
                self._note_lost(hired.node)
        return alive

    def _note_lost(self, node: Node) -> None:
        if node.name not in self.report.lost:
            self.report.lost.append(node.name)
        self._drop(node)


def _start(_: None) -> None:
    """Do nothing: once that is done, the process runs."""
