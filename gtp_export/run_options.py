"""``--backend``, ``--precision`` and the options of backends, for the commands that run files.

They come from the registry of backends: a command that is marked with ``takes_run_options`` has an option for every
option that a backend declares. One that is not given is not passed on, so a backend refuses what it does not take.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from gtp_export import console
from gtp_runtime import Model, load
from gtp_runtime.backends import BACKENDS, BackendSpec, find_backend
from gtp_runtime.errors import BackendMissingError
from gtp_runtime.loading import load_twin
from gtp_runtime.manifest import find_graph
from gtp_runtime.run_arguments import TRUST

PANEL = "How files run"
TRUST_PANEL = "What is trusted"
NOT_KEPT = (
    "note: the result was not stored in the manifest: it is signed or cannot be written, or the file was replaced "
    "during the run (-v shows which)"
)


@dataclass(frozen=True)
class RunOptions:
    """How the user wants files to run.

    Attributes:
        backend: its name, or "auto".
        given: the options that the user gave.
        defaults: the command's own, for backends that have these options.
        precision: of a directory's graphs, the one that is meant; None is model.onnx.
    """

    backend: str
    given: Mapping[str, Any]
    defaults: Mapping[str, Any]
    precision: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of ``gtp_runtime.load`` for a directory, as the user gave them."""
        return {"backend": self.backend, "precision": self.precision, **self.given}

    def load(self, path: Path) -> Model:
        """Load a file, or what suits this device of a directory. Raises as ``gtp_runtime.load`` does."""
        return load(path, self.backend, precision=self.precision, **self.options(self.file(path)))

    def file(self, path: Path) -> Path:
        """Return the file of a path: of a directory, the graph in the given precision. Raises as ``load`` does."""
        return find_graph(path, self.precision) if path.exists() else path

    def load_file(self, file: Path) -> Model:
        """Load a file. Raises as ``gtp_runtime.load`` does."""
        return load(file, self.backend, **self.options(file))

    def load_twin(self, model: Model) -> Model | None:
        """Load the dense baseline of a file; None if there is none, or, with a note, if nothing here can run it."""
        trust = {name: self.given[name] for name, _, _ in TRUST if name in self.given}
        try:
            return load_twin(model, **trust)
        except BackendMissingError as error:
            console.note(f"note: not compared with the dense baseline: {error}")
            return None

    def options(self, file: Path) -> dict[str, Any]:
        """Return the options that the backend of a file gets: those given, and the command's own that it takes."""
        return self.options_of(file) if file.exists() else dict(self.given)  # for load to report

    def options_of(self, file: Path) -> dict[str, Any]:
        """Return the same of a file that need not exist. Raises as ``gtp_runtime.load`` does of backends."""
        names = self.spec(file).option_names
        return {**{name: value for name, value in self.defaults.items() if name in names}, **self.given}

    def spec(self, file: Path) -> BackendSpec:
        """Return the backend that runs a file, which need not exist. Raises as ``gtp_runtime.load`` does."""
        return find_backend(file, self.backend)


def takes_run_options(*, files: bool = True, **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark a command that runs files; it gets its ``RunOptions`` as the argument ``running``.

    Args:
        files: whether the command takes files; one that makes them has no use for --precision and what is trusted.
        defaults: options whose default differs from the backend's in this command.
    """

    def made(values: dict[str, Any]) -> RunOptions:
        backend, precision = values.pop("backend"), values.pop("precision", None)
        return RunOptions(backend, _given(values), defaults, precision)

    return _mark("running", _parameters(defaults, files), made)


def takes_backend_options(
    without: Collection[str] = (), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark a command that chooses backends itself; it gets their options that were given as ``backend_options``.

    Args:
        without: options that it does not take.
        defaults: options whose default differs from the backend's in this command.
    """
    return _mark("backend_options", [entry for entry in _of_backends(defaults) if entry.name not in without], _given)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _mark(
    name: str, added: list[inspect.Parameter], make: Callable[[dict[str, Any]], Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put parameters in place of a command's argument ``name``, which is made from their values."""

    def mark(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)

        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {entry.name: _plain(given.pop(entry.name)) for entry in added}
            command(**given, **{name: make(values)})

        own = list(signature.parameters.values())
        place = list(signature.parameters).index(name)
        parameters = [*own[:place], *added, *own[place + 1 :]]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return mark


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _parameters(defaults: Mapping[str, Any], files: bool) -> list[inspect.Parameter]:
    backends = _choices("backend", ("auto", *BACKENDS))
    names = ", ".join(("auto", *BACKENDS))
    text = f"What runs the file: {names}; auto goes by its extension, and tries a directory's engine first."
    trust = [_parameter(name, kind | None, text, None, TRUST_PANEL) for name, kind, text in TRUST]
    of_directory = "Of a directory, the graphs in this precision: fp32, int8, … (default: model.onnx)."
    return [
        _parameter("backend", backends, text, backends("auto")),
        *([_parameter("precision", str | None, of_directory, None)] if files else []),
        *_of_backends(defaults),
        *(trust if files else []),
    ]


def _of_backends(defaults: Mapping[str, Any]) -> list[inspect.Parameter]:
    """One parameter for each option that a backend has; its help says which backends take it."""
    takers: dict[str, list[str]] = {}
    kinds: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for spec in BACKENDS.values():
        for entry in fields(spec.options):
            takers.setdefault(entry.name, []).append(spec.name)
            kind = get_type_hints(spec.options)[entry.name]
            kinds[entry.name] = _merged(entry.name, kinds.get(entry.name, kind), kind)
            default = defaults.get(entry.name, entry.default)
            shown = {False: "no", True: "yes"}[default] if isinstance(default, bool) else default
            text = f"{entry.metadata['help'][:1].upper()}{entry.metadata['help'][1:]}"
            texts[entry.name] = f"{text}. For {{}} (default: {shown})."
    return [
        _parameter(name, _option_type(name, kinds[name]) | None, texts[name].format(", ".join(names)), None)
        for name, names in takers.items()
    ]


def _merged(name: str, one: Any, other: Any) -> Any:
    """Return the type of an option that several backends take: the choices of all.

    Raises:
        TypeError: types that do not go together.
    """
    if one == other:
        return one
    if get_origin(one) is not Literal or get_origin(other) is not Literal:
        raise TypeError(f"backends declare the option {name} as {one} and as {other}: give one of them another name")
    return Literal[tuple(dict.fromkeys((*get_args(one), *get_args(other))))]


def _option_type(name: str, kind: Any) -> Any:
    return _choices(name, get_args(kind)) if get_origin(kind) is Literal else kind


def _choices(name: str, values: "tuple[str, ...]") -> Any:
    return Enum(name, {value: value for value in values}, type=str)


def _parameter(name: str, kind: Any, text: str, default: Any, panel: str = PANEL) -> inspect.Parameter:
    option = typer.Option(help=text, rich_help_panel=panel, show_default=False)
    annotation = Annotated[kind, option]
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
