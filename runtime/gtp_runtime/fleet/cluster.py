"""Access to a Ray cluster: everything that is Ray's.

Work is Ray's tasks: Ray queues them, places them by the CPUs, the resource ``gtp_device`` and the label that every node
has for its id, and runs them again when a process or a node is lost.
"""

import os
import signal
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from gtp_runtime.errors import BackendMissingError, FleetError, InputError, first_line
from gtp_runtime.extras import Extra
from gtp_runtime.fleet.node import Needs

EXTRA = Extra("ray", {"ray": "ray"})
SECONDS = 5.0  # to reach the head of the cluster
RETRIES = 2  # times that an item is done again whose process or node was lost
DEVICE = "gtp_device"  # resource of the nodes where latency is measured
NODE_ID = "ray.io/node-id"  # label that Ray gives to every node


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


@dataclass(frozen=True)
class Place:
    """Where an item may be worked on.

    Attributes:
        cpus: that it takes.
        device: how much of the resource ``gtp_device`` it takes.
        only: id of the one node; "" for any.
        without: ids of nodes that are none of them.
    """

    cpus: int
    device: float = 0.0
    only: str = ""
    without: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Event:
    """What a node says of an item: it has begun, it cannot do such items and why, or the result.

    Attributes:
        node: id of the node.
    """

    kind: Literal["begun", "unfit", "done"]
    node: str
    value: Any = None


def join(address: str) -> "RayCluster":
    """Connect this process to a cluster. Raises as ``fleet.connect`` does."""
    _check_address(address)
    ray = _import()
    try:
        with _signals_kept():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except Exception as error:  # Ray raises ConnectionError, RuntimeError and ValueError, each for many things
        raise FleetError(f"cannot join the cluster at {address}: {first_line(error)}") from error
    return RayCluster(ray)


class RayCluster:
    """The cluster that this process is connected to.

    Args:
        ray: the module.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._call = ray.remote(_node_call())

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive."""
        return [_node(entry) for entry in self._ray.nodes() if entry["Alive"]]

    def share(self, make: Any) -> Any:
        """Put what makes a task's function into the object store."""
        return self._ray.put(make)

    def submit(self, place: Place, needs: Needs, task: Any, item: Any) -> Any:
        """Let a node call the function of a shared task; return what stands for its events, a generator of Ray's."""
        options: dict[str, Any] = {"num_cpus": place.cpus, "max_retries": RETRIES, "num_returns": "streaming"}
        if place.device:
            options["resources"] = {DEVICE: place.device}
        if place.only or place.without:
            nodes = place.only or f"!in({', '.join(sorted(place.without))})"
            options["label_selector"] = {NODE_ID: nodes}
        packed = self._ray.cloudpickle.dumps((needs, item))
        return self._call.options(**options).remote([task], packed)  # in a list, a node gets it only where it is new

    def wait(self, references: Collection[Any], seconds: float) -> list[Any]:
        """Return those that have an event, once one has or the time is over."""
        return list(self._ray.wait(list(references), timeout=seconds)[0])

    def event(self, reference: Any) -> Event:
        """Return the next event. Raises ``FleetError`` for a lost process, and what the function raised."""
        exceptions = self._ray.exceptions
        try:
            return Event(*self._ray.get(next(reference)))
        except exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except exceptions.RayError as error:  # of the process or its node
            raise FleetError(f"an item lost its process {RETRIES + 1} times: {first_line(error)}") from error

    def cancel(self, reference: Any) -> None:
        """Cancel a task."""
        self._ray.cancel(reference)

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


def _node_call() -> Any:
    """Return what Ray calls on a node. It is sent by value, so that a node with another gtp-export says what it is."""

    def call(tasks: list[Any], packed: bytes) -> Any:
        from functools import partial

        import ray

        node = ray.get_runtime_context().get_node_id()
        yield "begun", node
        try:
            from gtp_runtime.fleet.node import WORKER

            needs, item = ray.cloudpickle.loads(packed)
            function = WORKER.function(needs, tasks[0].hex(), partial(ray.get, tasks[0]))
        except Exception as error:
            yield "unfit", node, (str(error).strip() or type(error).__name__).splitlines()[0]
            return
        yield "done", node, function(item)

    return call


def _node(entry: dict[str, Any]) -> Node:
    resources, name = entry["Resources"], entry["NodeName"]
    if name == entry["NodeManagerAddress"]:  # it was given none; several nodes may share an address
        name = f"{entry['NodeManagerHostname']}-{entry['NodeID'][:6]}"
    return Node(entry["NodeID"], name, int(resources.get("CPU", 0)), float(resources.get(DEVICE, 0)))


def _check_address(address: str) -> None:
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise InputError(f"{address!r} is no address of a cluster: give HOST:PORT of its head, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()
    except (OSError, OverflowError) as error:
        raise FleetError(f"no cluster at {address} ({_reason(error)}): ray start --head starts one") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)


def _import() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to Ray's makers
    try:
        return import_module("ray")
    except ImportError as error:
        raise BackendMissingError(f"ray is not installed: {EXTRA.command}") from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
