"""Names that modules declare, read from their source: the modules themselves import torch, which takes seconds."""

import ast
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from gtp_models.errors import UnknownModelError, closest

AXES = {  # an axis of GTP: the module of its entries, their class (``gtp_models.methods.gtp.axes``) and the registry
    "selection": ("gtp_models.methods.gtp.selections", "Selection", "SELECTIONS"),
    "graph": ("gtp_models.methods.gtp.graphs", "Graph", "GRAPHS"),
    "propagation": ("gtp_models.methods.gtp.propagations", "Propagation", "PROPAGATIONS"),
}


def axis_names(axis: str) -> tuple[str, ...]:
    """Return the names of an axis' entries in alphabetical order; none where they cannot be told from the source.

    Args:
        axis: "selection", "graph" or "propagation".
    """
    module, kind, registry = AXES[axis]
    imported = sys.modules.get(module)
    if imported is not None:  # then others may have added entries
        return tuple(sorted(getattr(imported, registry)))
    return _calls(module, kind)


@cache
def _calls(module: str, kind: str) -> tuple[str, ...]:
    """Return the first arguments of all calls of a class in a module, where they are literal strings."""
    spec = find_spec(module)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return ()
    calls = [node for node in ast.walk(ast.parse(Path(spec.origin).read_bytes())) if isinstance(node, ast.Call)]
    firsts = [node.args[0] for node in calls if isinstance(node.func, ast.Name) and node.func.id == kind and node.args]
    values = [first.value for first in firsts if isinstance(first, ast.Constant)]
    return tuple(sorted(value for value in values if isinstance(value, str)))


def check_timm(name: str) -> None:
    """Refuse a name that timm's source, and that of what is registered beside it, does not hold as a word.

    Raises:
        UnknownModelError: there is no such model; the message offers the closest names. Not every name that passes
            exists: ``timm_models.check_timm_name`` knows, with timm.
    """
    word, source = name.partition(".")[0], _timm_source()
    if source and not (word and re.search(rf"\b{re.escape(word)}\b", source)):
        names = re.findall(r"@register_model\ndef (\w+)", source)
        raise UnknownModelError(f"timm has no model {name!r}: {closest(word, names)}")


@cache
def _timm_source() -> str:
    """Return the source of all models; nothing where it is not there, or where timm is loaded anyway."""
    spec = None if "timm" in sys.modules else find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return ""
    files = sorted(Path(spec.submodule_search_locations[0], "models").glob("*.py"))
    return "".join(file.read_text("utf-8") for file in [*files, *Path(__file__).parent.glob("lvvit.py")] if files)
