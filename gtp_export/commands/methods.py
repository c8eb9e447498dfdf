"""``gtp-export methods``: list the token reduction methods, and the entries of GTP's axes."""

from typing import Any

from gtp_export import console
from gtp_export.options import Json


def methods(json: Json = False) -> None:
    """List the token reduction methods, and GTP's selections, graphs and propagations."""
    from gtp_models import METHODS
    from gtp_models.methods.gtp.graphs import GRAPHS
    from gtp_models.methods.gtp.propagations import PROPAGATIONS
    from gtp_models.methods.gtp.selections import SELECTIONS

    found: dict[str, dict[str, str]] = {
        "method": _summaries(METHODS),
        "selection": _summaries(SELECTIONS),
        "graph": _summaries(GRAPHS),
        "propagation": _summaries(PROPAGATIONS),
    }
    if json:
        console.emit(found)
        return
    for option, entries in found.items():
        console.table("", (f"--{option}", "description"), list(entries.items()))
    console.out.print("next: gtp-export export MODEL --method METHOD")


def _summaries(registry: Any) -> dict[str, str]:
    return {name: registry[name].summary for name in registry.names()}
