"""Access to a Ray cluster: everything that is Ray's."""

import logging
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gtp_runtime.errors import FleetError
from gtp_runtime.fleet.hands import Worker
from gtp_runtime.fleet.nodes import DEVICE, Hand, LostError, Node
from gtp_runtime.text import one_line

log = logging.getLogger(__name__)

# Of the process or its node. An exception of the function itself is a RayTaskError.
LOST = (
    exceptions.RayActorError,
    exceptions.ActorUnschedulableError,
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
    exceptions.WorkerCrashedError,
    exceptions.OutOfMemoryError,
)


class RayHand:
    """A process on a node, an actor of Ray's."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def begin(self, task: str, make: Any) -> Any:
        """Let ``make`` make the function of a task."""
        return self.actor.begin.remote(task, make)

    def do(self, task: str, item: Any) -> Any:
        """Call the function of a task."""
        return self.actor.do.remote(task, item)

    def end(self, task: str) -> Any:
        """Forget a task."""
        return self.actor.end.remote(task)

    def call(self, function: Callable[[Any], Any], item: Any) -> Any:
        """Call a function."""
        return self.actor.call.remote(function, item)


class RayCluster:
    """A cluster that this process is connected to.

    Args:
        code, images: as ``hands.Worker`` takes them.
    """

    def __init__(self, code: Mapping[str, str], images: tuple[str, str] | None) -> None:
        _log_messages()
        self._worker = ray.remote(Worker)
        self._arguments = (code, images)

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive."""
        return [_node(entry) for entry in ray.nodes() if entry["Alive"]]

    def hire(self, node: Node) -> Hand:
        """Start a process that has all CPUs of a node; it need not run yet."""
        place = NodeAffinitySchedulingStrategy(node.id, soft=False)
        takes = {DEVICE: min(1.0, node.device)} if node.device else {}
        options = {"num_cpus": node.cpus, "resources": takes, "scheduling_strategy": place, "max_restarts": 0}
        return RayHand(self._worker.options(**options).remote(*self._arguments))

    def dismiss(self, hand: Hand) -> None:
        """End a process."""
        assert isinstance(hand, RayHand)
        ray.kill(hand.actor)

    def share(self, value: Any) -> Any:
        """Put a value into the object store."""
        return ray.put(value)

    def wait(self, references: Collection[Any], seconds: float) -> list[Any]:
        """Return those that are there, once one is or the time is over."""
        return list(ray.wait(list(references), timeout=seconds)[0])

    def result(self, reference: Any) -> Any:
        """Return what a reference stands for."""
        try:
            return ray.get(reference)
        except exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except LOST as error:
            if getattr(error, "actor_init_failed", False):
                why = one_line(str(error).strip().splitlines()[-1])
                raise FleetError(f"its process cannot start ({why}): install the same gtp-export there") from error
            raise LostError(str(error)) from error

    def close(self) -> None:
        """Leave the cluster."""
        ray.shutdown()


def _log_messages() -> None:
    """Log what Ray says of nodes: it prints that on stdout, where a command may write a JSON document."""
    module: Any = import_module("ray._private.worker")

    def tell(data: dict[str, Any], *_: Any, **__: Any) -> None:
        for text in data.get("lines", []):
            log.info("Ray: %s", one_line(text))

    module.print_to_stdstream = tell  # Ray has no option for it


def _node(entry: dict[str, Any]) -> Node:
    has = entry["Resources"]
    name = entry["NodeName"]
    if name == entry["NodeManagerAddress"]:  # it was given none; several nodes may share an address
        name = f"{entry['NodeManagerHostname']}-{entry['NodeID'][:6]}"
    return Node(entry["NodeID"], name, int(has.get("CPU", 0)), float(has.get(DEVICE, 0)))
