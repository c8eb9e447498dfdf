"""What "auto" makes of a directory: its engine, else ONNX Runtime with CUDA, else on the CPU.

The backends say what is tried, and in which order (``BackendSpec.attempts``).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gtp_runtime.backends import BACKENDS, Attempt, BackendSpec, find_backend
from gtp_runtime.errors import BackendMissingError, DeviceError, EngineMismatchError
from gtp_runtime.manifest import Manifest, is_present
from gtp_runtime.model import Model

log = logging.getLogger(__name__)
UNUSABLE = (BackendMissingError, DeviceError, EngineMismatchError)  # a damaged file is no reason to take another


@dataclass(frozen=True)
class Choice:
    """A way to run a directory.

    Attributes:
        file: which of its files.
        spec: the backend.
        options: of the backend, beside those that the user gives.
    """

    file: Path
    spec: BackendSpec
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = "".join(f", {name} {value}" for name, value in self.options.items())
        return f"{self.file.name} with {self.spec.name}{options}"


def choices(graph: Path, manifest: Manifest, given: Mapping[str, Any]) -> list[Choice]:
    """Return the ways to run a graph or an engine that was built from it, the best first; none if neither is there.

    Args:
        graph: of the directory, which may be missing.
        manifest: of the directory.
        given: options of the user. What contradicts them, or does not take them, is not tried.
    """
    files = [file for file in (*_engines(graph, manifest), graph) if is_present(file, manifest)]
    ranked: list[tuple[int, Choice]] = [
        (attempt.rank, Choice(file, spec, attempt.options))
        for spec in BACKENDS.values()
        for file in files
        if file.suffix in spec.default_for
        for attempt in spec.attempts
        if _suits(spec, attempt, given)
    ]
    best_first = [choice for _, choice in sorted(ranked, key=lambda entry: entry[0])]
    return best_first or [Choice(file, find_backend(file)) for file in files[-1:]]  # which says what it does not take


def _suits(spec: BackendSpec, attempt: Attempt, given: Mapping[str, Any]) -> bool:
    return set(given) <= set(spec.option_names) and not set(attempt.options) & set(given)


def _engines(graph: Path, manifest: Manifest) -> list[Path]:
    """Return the engines that were built from a graph."""
    built = [name for name, entry in manifest.files.items() if entry.engine and entry.engine.onnx == graph.name]
    return [graph.parent / name for name in built]


def first_usable(found: Sequence[Choice], start: Callable[[Choice], Model]) -> Model:
    """Start the first choice that this device can run; one line of the log says which, and why none before it.

    Raises:
        BackendMissingError, DeviceError, EngineMismatchError: that of the last choice, where none runs.
        Others: as ``load``, at once.
    """
    refused: list[str] = []
    for choice in found:
        try:
            model = start(choice)
        except UNUSABLE as error:
            refused.append(f"{choice}: {error}")
            if choice is found[-1]:
                raise
        else:
            level = logging.WARNING if choice.file != found[0].file else logging.INFO
            why = "".join(f"; not {text}" for text in refused)
            log.log(level, "%s: runs %s%s", choice.file.parent, choice, why)
            return model
    raise AssertionError("no choice")
