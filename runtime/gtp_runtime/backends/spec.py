"""What a backend is, the registry of all backends, and the options that they take.

A backend is one module or folder of this package that adds a ``BackendSpec`` to ``BACKENDS`` and imports its engine
only in ``open``. Everything that names backends reads ``BACKENDS``: the options of the command line, their help,
``doctor`` and the messages.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

import numpy as np

from gtp_runtime.cpus import machine_cpus
from gtp_runtime.errors import InputError
from gtp_runtime.extras import Extra
from gtp_runtime.manifest import FileEntry
from gtp_runtime.registry import Registry

THREADS = {  # the metadata of an option that several backends have
    "help": "CPU threads, 0 for all that this process may use. Default: 1 where latency is measured (bench, compare, "
    "tune, export, quantize), else 0"
}


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


class _Backends(Registry[BackendSpec]):
    def add(self, spec: BackendSpec) -> BackendSpec:
        """Add a backend and return it.

        Raises:
            InputError: its name is taken, or another backend is the default for one of its endings.
        """
        for other in self.values():
            if other is not spec and set(other.default_for) & set(spec.default_for):
                raise InputError(f"backend {spec.name} has a default extension of the backend {other.name}")
        return super().add(spec)


BACKENDS = _Backends("backend", InputError)


def find_backend(file: Path, name: str = "auto") -> BackendSpec:
    """Return the backend that runs a file.

    Args:
        file: its ending counts.
        name: a backend's name, or "auto" for the default of the file's ending.

    Raises:
        InputError: no backend has this name, or it does not run such files.
    """
    for spec in BACKENDS.values():
        if file.suffix in (spec.default_for if name == "auto" else spec.suffixes) and name in ("auto", spec.name):
            return spec
    choices = "; ".join(f"{spec.name} ({', '.join(spec.suffixes)})" for spec in BACKENDS.values())
    problem = "no backend runs" if name == "auto" else f"backend {name!r} does not run"
    raise InputError(f"{problem} {file.name}: there are {choices}")


def make_options(spec: BackendSpec, given: Mapping[str, Any]) -> Any:
    """Return a backend's options; None stands for the default.

    Raises:
        InputError: an option that the backend does not take, or a value that is not one of its.
    """
    kinds = get_type_hints(spec.options)
    chosen = {name: value for name, value in given.items() if value is not None}
    for name, value in chosen.items():
        if name not in spec.option_names:
            takes = ", ".join(spec.option_names) or "none"
            raise InputError(f"{spec.name} takes no option {name}: it takes {takes}")
        _check(name, value, kinds[name])
    return spec.options(**chosen)


def _check(name: str, value: Any, kind: Any) -> None:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{name}={value!r}: choose one of {', '.join(get_args(kind))}")
    elif kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"{name}={value!r}: give True or False")
    elif isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name}={value!r}: give a whole number")


def check_threads(threads: int) -> None:
    """Check a number of threads.

    Raises:
        InputError: it is neither 0 (all) nor between 1 and the number of cores of this machine.
    """
    cores = machine_cpus()
    if not 0 <= threads <= cores:
        raise InputError(f"threads={threads}: give 1 to {cores} (the cores of this machine), or 0 for all")
