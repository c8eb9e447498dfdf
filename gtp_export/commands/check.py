"""``gtp-export check``: what a target takes of an export's graphs, by its documentation."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gtp_export import console
from gtp_export.options import GraphPath, Json, one_of, option
from gtp_exporters.targets.operators import NO, ON_CPU, SOURCES, TARGETS, UNKNOWN
from gtp_runtime.errors import GATE_FAILED

if TYPE_CHECKING:
    from gtp_exporters.targets.reading import Check, Reading

SHOWN = 6  # nodes that are named
READ = "a reading of documentation: nothing was compiled, and nothing ran on a device"


def check(
    path: GraphPath,
    target: Annotated[str, option("What the graphs are for.", "--target", show_default=False, **one_of(TARGETS))],
    json: Json = False,
) -> None:
    """Check what a target takes of each graph, by its documentation, before anything is compiled.

    Exit code 3: it documents that it refuses a node, or leaves one to the CPU. What no source says is unknown.
    """
    with console.progress("reading"):
        from gtp_exporters.targets.reading import check_target

        found = check_target(path, target)
    if json:
        console.emit(_document(found))
    else:
        _show(found, path)
    if not found.ok:
        raise typer.Exit(GATE_FAILED)


def _document(found: "Check") -> dict[str, Any]:
    facts = TARGETS[found.target]
    graphs = [
        {
            "file": reading.file,
            "ok": reading.ok,
            "counts": reading.counts,
            "operators": [{"count": len(row.nodes), **asdict(row)} for row in reading.rows],
            "better": None if reading.better is None else asdict(reading.better),
        }
        for reading in found.readings
    ]
    return {
        "ok": found.ok,
        "target": found.target,
        "title": facts.title,
        "basis": READ,
        "outcome": facts.outcome,
        "graphs": graphs,
        "notes": list(facts.notes),
        "sources": {name: SOURCES[name] for name in found.sources},
    }


def _show(found: "Check", path: Path) -> None:
    facts = TARGETS[found.target]
    console.out.print(f"{facts.title}: {READ}", markup=False)
    for reading in found.readings:
        _graph(reading, facts.outcome)
    for note in facts.notes:
        console.out.print(f"note: {note}", markup=False)
    for name in found.sources:
        console.out.print(f"[{name}] {SOURCES[name]}", markup=False)
    _next(found, path)


def _graph(reading: "Reading", outcome: str) -> None:
    rows = [
        (row.operator, f"{len(row.nodes)}", row.verdict, row.reason, f"[{row.source}]" if row.source else "-")
        for row in reading.rows
    ]
    console.table(reading.file, ("operator", "nodes", "taken", "why", "source"), rows)
    counts = ", ".join(f"{verdict} {count}" for verdict, count in reading.counts.items() if count)
    console.out.print(f"{reading.file}: of {sum(reading.counts.values())} nodes {counts}", markup=False)
    names = [name for row in reading.rows if row.verdict == NO for name in row.nodes]
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        console.out.print(f"{outcome}: {', '.join(names[:SHOWN])}{more}", markup=False)
    for text in _instead([reading]):
        console.out.print(f"instead: {text}", markup=False)


def _instead(readings: "list[Reading]") -> list[str]:
    """Return what avoids nodes that are not taken, beside another form."""
    rows = [row for reading in readings for row in reading.rows if row.verdict == NO and row.instead]
    return list(dict.fromkeys(row.instead for row in rows))


def _next(found: "Check", path: Path) -> None:
    failed = [reading for reading in found.readings if not reading.ok]
    better = [(reading, way) for reading in failed if (way := reading.better) is not None]
    for reading, way in better:
        console.out.print(
            f"next: gtp-export export MODEL … {' '.join(way.options)}: {reading.file} then has {way.counts[NO]} such "
            f"nodes instead of {reading.counts[NO]}, and {way.counts[UNKNOWN]} that are unknown",
            markup=False,
        )
    if better:
        return
    if instead := _instead(failed):
        console.out.print(f"next: {'; '.join(instead)}", markup=False)
    elif failed:
        on_cpu = TARGETS[found.target].outcome == ON_CPU
        rest = "measure there what they cost" if on_cpu else "a newer version may take them"
        console.out.print(f"next: no form of ours has fewer such nodes: {rest}, or choose another target")
    elif found.target == "tensorrt":
        console.next_command("build-engine", path)
    else:
        console.out.print("next: compile it for the device, and prove its answers there")
