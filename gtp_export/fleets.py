"""``--ray`` of commands: joins a cluster, and says what its nodes did."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtp_export import console

if TYPE_CHECKING:
    from gtp_runtime.fleet import Fleet


@contextmanager
def joined(address: str | None, images: Path | None, device: bool = False) -> "Iterator[Fleet | None]":
    """Yield the nodes of a cluster; None without an address.

    Args:
        address, images: as ``gtp_runtime.fleet.connect`` takes them, and raises.
        device: whether latency will be measured; without a node for it, ``FleetError`` is raised at once.
    """
    if address is None:
        yield None
        return
    from gtp_runtime.fleet import connect

    with connect(address, images, console.note) as fleet:
        if device:
            fleet.check_device()
        yield fleet


def scoring(fleet: "Fleet | None") -> dict[str, Any]:
    """Return the arguments of ``gtp_runtime.evaluate`` that let the nodes score the images."""
    if fleet is None:
        return {}
    from gtp_runtime.fleet import fleet_scoring

    return {"scoring": fleet_scoring(fleet)}


def document(fleet: "Fleet | None") -> dict[str, Any]:
    """Return what a JSON document says of the nodes."""
    return {} if fleet is None else {"fleet": asdict(fleet.report())}


def show(fleet: "Fleet | None") -> None:
    """Print what the nodes did, and note which did nothing and why."""
    if fleet is None:
        return
    report = fleet.report()
    counts = ", ".join(f"{name} {count}" for name, count in report.counts.items())
    console.out.print(f"parts done by each node: {counts or 'none'}")
    if report.timed:
        console.out.print(f"latency measured on: {', '.join(report.timed)}")
    if report.lost:
        console.note(f"note: lost during the run: {', '.join(report.lost)}; what they had was done again")
    for name, why in report.left_out.items():
        console.note(f"note: node {name} was left out: {why}")
