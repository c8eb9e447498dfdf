"""Starts a local Ray cluster, does the named scenarios on it, and prints what came out as one JSON document.

It is a process of its own, started by ``test_ray``: Ray starts others, and they end with it.
"""

import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

import gtp_runtime
from gtp_runtime.fleet import Fleet, Timing, connect, fleet_scoring, time_files

SECONDS = 150.0  # that this process may take
STORE = 80 << 20  # bytes of shared memory for each node
QUICK = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


def start(nodes: dict[str, dict[str, Any]]) -> tuple[Cluster, dict[str, Any]]:
    """Start nodes by name, each with options of Ray's; the first is the head."""
    cluster, found = Cluster(), {}
    for name, more in nodes.items():
        options = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False, "node_name": name, **more}
        found[name] = cluster.add_node(**options, **({} if found else {"_system_config": QUICK}))
    return cluster, found


def evaluate(fleet: Fleet, kill: Any, export: str, data: str) -> Any:
    """Accuracy on a folder; ``kill`` is called once, after the first shard."""

    def tell(task: str, share: float | None = None) -> None:
        kill()

    with gtp_runtime.load(export, threads=1) as model, gtp_runtime.load(f"{export}/dense.onnx", threads=1) as dense:
        return gtp_runtime.evaluate(model, dense, data, tell, scoring=fleet_scoring(fleet)).to_dict()


def search(fleet: Fleet, kill: Any, place: str, images: str) -> Any:
    """All trials of a search; ``kill`` is called once, after the first answer of a node."""
    from test_tune import search_tiny

    class Killing:
        trials = fleet.trials

        def map(self, function: Any, items: Any) -> Any:
            for found in fleet.map(function, items):
                kill()
                yield found

    workers: Any = Killing()
    return [asdict(result) for result in search_tiny(Path(place), Path(images), None, workers).results]


def benchmark(fleet: Fleet, kill: Any, export: str) -> Any:
    """Latency of a file beside its baseline, on the device, and where it was measured."""
    files = Path(export) / "dense.onnx", Path(export) / "model.onnx"
    found = fleet.on_device(time_files, Timing(files, options=({"threads": 1},) * 2, seconds=0.0, rounds=3))
    return {"latency": [asdict(latency) for latency in found], "node": fleet.on_device(node_name, None)}


def fail(fleet: Fleet, kill: Any) -> Any:
    """What is raised on a node."""
    try:
        list(fleet.map(int, ["1", "x"]))
    except ValueError as error:
        return str(error)


def die(fleet: Fleet, kill: Any) -> Any:
    """An item that ends its process."""
    try:
        list(fleet.map(os._exit, [1]))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def node_name(_: None) -> str:
    """Return the name of the node that this runs on."""
    here = ray.get_runtime_context().get_node_id()
    return next(node["NodeName"] for node in ray.nodes() if node["NodeID"] == here)


def main(nodes: dict[str, Any], scenarios: dict[str, Any], images: str | None = None, kills: str = "") -> None:
    """Do the scenarios, one after another; the node ``kills`` is killed by the first that takes the chance."""
    cluster, found = start(nodes)

    def kill() -> None:
        node = found.pop(kills, None)
        if node is not None:
            cluster.remove_node(node, allow_graceful=False)

    results = {}
    try:
        with connect(cluster.address, images) as fleet:
            for name, arguments in scenarios.items():
                results[name] = globals()[name](fleet, kill, **arguments)
            results |= {"report": asdict(fleet.report()), "killed": sorted(set(nodes) - set(found))}
    finally:
        cluster.shutdown()
    print(json.dumps(results))


if __name__ == "__main__":
    timer = threading.Timer(SECONDS, os._exit, [99])
    timer.daemon = True
    timer.start()
    main(**json.loads(sys.argv[1]))
