"""Spreads work over the nodes of a Ray cluster; needs the extra ``ray``, which ``connect`` alone imports.

    cluster     everything of Ray's: nodes, tasks with retries, results as they come.
    fleet       ``connect``, ``Fleet``: maps a function over items in order, calls one where latency is measured.
    node        what runs on a node, and the files that are sent to it.
    jobs        ``fleet_scoring``: shards of an evaluation; ``time_files``, ``start_file``: latency and footprint.

    with connect("auto", images="imagenet/val") as fleet:
        accuracy = gtp_runtime.evaluate(model, dense, "imagenet/val", scoring=fleet_scoring(fleet))
        latencies = fleet.on_device(time_files, Timing((dense.path, model.path)))

Ray unpickles what its nodes send: whoever reaches the ports of a cluster can run code on all of its machines.
"""

from gtp_runtime.fleet.cluster import DEVICE
from gtp_runtime.fleet.fleet import Fleet, connect
from gtp_runtime.fleet.jobs import Timing, fleet_scoring, time_files

__all__ = ["DEVICE", "Fleet", "Timing", "connect", "fleet_scoring", "time_files"]
