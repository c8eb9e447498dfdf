"""``--backend``, ``--precision`` and the options of backends for ``python -m gtp_runtime``, from their registry."""

import argparse
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gtp_runtime.backends import BACKENDS

TRUST: tuple[tuple[str, Any, str], ...] = (  # arguments of ``load`` that are no backend's
    ("trusted_key", str, "Public key (.pub) that must have signed the directory; nothing is loaded otherwise."),
    ("min_version", int, "With --trusted-key: the lowest version of a signed export that is accepted."),
    (
        "remember",
        str,
        "With --trusted-key: file that stores the highest accepted version; older ones are refused.",
    ),
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add an option for each argument of ``load``; one that is not given is None."""
    specs = BACKENDS
    parser.add_argument("--backend", choices=("auto", *specs), default="auto", help="what runs the file")
    parser.add_argument("--precision", help="of a directory, the graphs in this precision (default: model.onnx)")
    for name, help_ in _options().items():
        parser.add_argument(_flag(name), help=help_.replace("%", "%%"), **_kind(name))
    for name, kind, help_ in TRUST:
        parser.add_argument(_flag(name), type=kind, help=help_)


def given(values: argparse.Namespace) -> dict[str, Any]:
    """Return what was given as arguments of ``load``, which refuses what a backend does not take."""
    names = ("backend", "precision", *_options(), *(name for name, _, _ in TRUST))
    found = {name: getattr(values, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _options() -> dict[str, str]:
    """Return the options that backends declare, by name, with their help."""
    return {
        entry.name: f"{entry.metadata['help']} (backends that take it: {', '.join(_takers(entry.name))})"
        for spec in BACKENDS.values()
        for entry in fields(spec.options)
    }


def _takers(name: str) -> list[str]:
    return [spec.name for spec in BACKENDS.values() if name in spec.option_names]


def _kind(name: str) -> dict[str, Any]:
    """Return argparse's words for the type of an option: a whole number, yes or no, or the choices of all takers."""
    kinds = [get_type_hints(BACKENDS[taker].options)[name] for taker in _takers(name)]
    if kinds[0] is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kinds[0]) is Literal:
        return {"choices": tuple(dict.fromkeys(choice for kind in kinds for choice in get_args(kind)))}
    return {"type": int}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
