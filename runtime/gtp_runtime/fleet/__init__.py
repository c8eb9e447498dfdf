"""Spreads work over the nodes of a Ray cluster; needs the extra ``ray``, which is imported by ``connect`` alone.

One process on each node does the node's work, one call after another (``hands``). ``Fleet.map`` hands out items and
yields the results in order (``spreading``); what a lost node did is done again elsewhere. ``Fleet.on_device`` calls on
a node that carries the resource ``gtp_device``, where latency is measured. Everything of Ray's is in ``cluster``.

    with connect("auto", images="imagenet/val") as fleet:
        accuracy = gtp_runtime.evaluate(model, dense, "imagenet/val", scoring=fleet_scoring(fleet))
        latencies = fleet.on_device(time_files, Timing((dense.path, model.path)))

Ray unpickles what its nodes send: whoever reaches the ports of a cluster can run code on all of its machines.
"""

from gtp_runtime.fleet.connecting import connect
from gtp_runtime.fleet.evaluating import fleet_scoring
from gtp_runtime.fleet.fleet import Fleet
from gtp_runtime.fleet.nodes import DEVICE
from gtp_runtime.fleet.timing import Timing, time_files

__all__ = ["DEVICE", "Fleet", "Timing", "connect", "fleet_scoring", "time_files"]
