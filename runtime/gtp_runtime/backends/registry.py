"""The registry of backends.

A backend is one module of this package that calls ``register`` with a ``BackendSpec`` and imports its engine only in
``open``; an application may register its own in the same way. Everything that names backends reads the registry: the
options of the command line, their help, ``doctor`` and the messages.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gtp_runtime.errors import InputError
from gtp_runtime.extras import Extra
from gtp_runtime.manifest import FileEntry


class Backend(Protocol):
    """A loaded file, ready to run; safe to share between threads.

    A backend may have two more methods: ``run_within(inputs, deadline)``, where it can stop a run, and
    ``stages(inputs)`` (see ``Latency.stages``).
    """

    name: str
    info: dict[str, Any]  # version, threads, provider: what a measurement depends on

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once: arrays by input name in, arrays by output name out."""
        ...

    def close(self) -> None:
        """Free what is held; running is an error afterwards."""
        ...


@dataclass(frozen=True)
class Attempt:
    """One way in which "auto" tries to run a directory with a backend.

    Attributes:
        rank: the lowest is tried first.
        options: of the backend, beside those that the user gives.
    """

    rank: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BackendSpec:
    """What a backend declares.

    Attributes:
        name: what users call it.
        runs: what it runs, in words: "ONNX files".
        suffixes: endings of the files that it runs.
        default_for: those of them for which "auto" takes it.
        extras: pip extras that let it run, each alone.
        options: a frozen dataclass; a field is an option of ``load`` and of the command line, its type is ``int``,
            ``bool`` or a ``Literal`` of strings, and its metadata has a "help" in words.
        open: opens a file whose sha256 was checked: (path, its entry of the manifest, options).
        trusting: returns the options for a signed directory, with what nobody signed switched off.
        attempts: how "auto" tries it for a directory's files that it is the default for.
        find_device: raises ``GTPRuntimeError`` where the device that it needs is missing.
    """

    name: str
    runs: str
    suffixes: tuple[str, ...]
    default_for: tuple[str, ...]
    extras: tuple[Extra, ...]
    options: type[Any]
    open: Callable[[Path, FileEntry, Any], Backend]
    trusting: Callable[[Any], Any] = lambda options: options
    attempts: tuple[Attempt, ...] = ()
    find_device: Callable[[], object] = lambda: None

    @property
    def option_names(self) -> tuple[str, ...]:
        """Names of its options."""
        return tuple(entry.name for entry in fields(self.options))


_registered: dict[str, BackendSpec] = {}


def register(spec: BackendSpec) -> BackendSpec:
    """Add a backend and return it.

    Raises:
        ValueError: its name is taken, or another backend is the default for one of its endings.
    """
    for other in _registered.values():
        if other.name == spec.name or set(other.default_for) & set(spec.default_for):
            raise ValueError(f"backend {spec.name} has the name or a default extension of the backend {other.name}")
    _registered[spec.name] = spec
    return spec


def all_backends() -> Mapping[str, BackendSpec]:
    """Return every backend by name, in alphabetical order."""
    package = importlib.import_module("gtp_runtime.backends")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_registered.items()))


def find_backend(file: Path, name: str = "auto") -> BackendSpec:
    """Return the backend that runs a file.

    Args:
        file: its ending counts.
        name: a backend's name, or "auto" for the default of the file's ending.

    Raises:
        InputError: no backend has this name, or it does not run such files.
    """
    known = all_backends()
    fitting = [spec for spec in known.values() if file.suffix in spec.suffixes]
    chosen = [spec for spec in fitting if spec.name == name or (name == "auto" and file.suffix in spec.default_for)]
    if not chosen:
        there = "; ".join(f"{spec.name} ({', '.join(spec.suffixes)})" for spec in known.values())
        wanted = "no backend runs" if name == "auto" else f"backend {name!r} does not run"
        raise InputError(f"{wanted} {file.name}: there are {there}")
    return chosen[0]
