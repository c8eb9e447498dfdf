"""Loads files of an artifact directory, after checking them against the manifest.

"auto" makes of a directory its engine, else ONNX Runtime with CUDA, else on the CPU. The backends say what is tried,
and in which order (``BackendSpec.attempts``).
"""

import functools
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gtp_runtime.backends import BACKENDS, Attempt, BackendSpec, find_backend, make_options
from gtp_runtime.backends.spec import check_runnable
from gtp_runtime.deploy.signing import Trust, verify
from gtp_runtime.errors import (
    BackendMissingError,
    DeviceError,
    EngineMismatchError,
    InputError,
    ManifestError,
    RandomWeightsWarning,
)
from gtp_runtime.manifest import Manifest, check_file, find_graph, is_present, read_manifest, twin
from gtp_runtime.model import Model

MOST_LINKS = 40  # that follow each other, as in Linux
UNUSABLE = (BackendMissingError, DeviceError, EngineMismatchError)  # a damaged file is no reason to take another
log = logging.getLogger(__name__)


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


def load(
    path: "str | os.PathLike[str]",
    backend: str = "auto",
    *,
    precision: str | None = None,
    trusted_key: Any = None,
    min_version: int | None = None,
    remember: "str | os.PathLike[str] | None" = None,
    check_inputs: bool = False,
    **options: Any,
) -> Model:
    """Load a file that gtp-export wrote.

    Args:
        path: the file (.onnx, .engine), or its directory, which means ``model.onnx`` or, with the backend "auto", the
            engine that was built from it. Of a directory that is a link, all files are read from where it points now.
        backend: the name of a backend, or "auto". Of a directory, a backend that runs no graphs takes the engine that
            was built from it. For a file, "auto" goes by its extension. For a directory it tries
            the engine, then ONNX Runtime with CUDA, then on the CPU; those that do not take the ``options`` are left
            out. The log has one line that says what runs, and why nothing before it does.
        precision: of a directory's graphs, the one to load ("fp32", "int8", …).
        trusted_key: the path of a public key (.pub), or a list of several, of which one must have signed the directory
            (docs/security.md); every file there is then checked. None demands no signature.
        min_version: the lowest version of a signed export that is accepted.
        remember: a file that keeps the highest version accepted so far, so that no older one is accepted again.
        check_inputs: refuse inputs with NaN or infinite values; costs one pass over the input of each run.
        options: options of the backend; None is the default. onnxruntime: ``threads`` (0 for all), ``provider``
            ("cpu", "cuda", "openvino", …), ``provider_options`` (of that provider: {"device_id": "0"}). openvino:
            ``threads``, ``compute`` ("fp32", "bf16", "fp16"), ``device`` ("CPU", "GPU", "NPU", "AUTO:GPU,CPU", …).
            tensorrt: ``host_code`` (let an engine run code of its own on the CPU; only for engines that you built).

    Raises:
        InputError: no such backend, an option that it does not have, an invalid value, a precision with a file, or
            ``check_inputs`` for an export that takes uint8 pixels.
        ManifestError: no such file, no graph in this precision, no manifest, or the file differs from its manifest
            (sha256).
        SignatureError: no trusted key signed the directory, or it was changed since; nothing was loaded.
        KeyFileError: a trusted key cannot be read.
        BackendMissingError: the backend or device is not installed.
        EngineMismatchError: the engine is for another TensorRT or GPU.
        DeviceError: CUDA or TensorRT reports an error.
    """
    file = file_for(_file(path, precision), path, backend)
    given = {name: value for name, value in options.items() if value is not None}
    fixed = None if backend == "auto" and Path(path).is_dir() else Choice(file, find_backend(file, backend))
    trust = Trust.of(trusted_key, min_version, remember)
    manifest = read_manifest(file.parent) if trust is None else verify(file.parent, trust).manifest
    candidates = choices(file, manifest, given) if fixed is None else [fixed]
    if not candidates:
        raise _missing(file)
    if manifest.weights.source == "random":
        warnings.warn(
            f"{file} was exported with random weights ({manifest.weights.detail}): its outputs are meaningless",
            RandomWeightsWarning,
            stacklevel=2,
        )
    check = None if trust else functools.cache(lambda file: check_file(file, manifest))  # reads a file once
    return first_usable(candidates, lambda choice: _open(choice, manifest, given, check, check_inputs))


def _open(
    choice: Choice,
    manifest: Manifest,
    given: Mapping[str, Any],
    check: Callable[[Path], None] | None,
    check_inputs: bool,
) -> Model:
    """Start a choice; ``check`` is None where the whole directory was verified."""
    file, spec = choice.file, choice.spec
    chosen = make_options(spec, {**choice.options, **given})
    if check is None:
        chosen = _trusting(spec, chosen, given)
    else:
        check(file)
    check_runnable(file, manifest)
    entry = manifest.entry(file.name)
    if check_inputs and entry.inputs[0].dtype == "uint8":
        raise InputError(f"check_inputs has no effect: {file.name} takes uint8 pixels, which are finite")
    log.debug("opening %s with %s", choice, chosen)
    return Model(file, manifest, spec.open(file, entry, chosen), chosen, check_inputs)


def _trusting(spec: BackendSpec, chosen: Any, given: Mapping[str, Any]) -> Any:
    """Return a backend's options for a signed directory.

    Raises:
        InputError: one that was given and is off then.
    """
    trusting = spec.trusting(chosen)
    for name, value in given.items():
        if value is not None and getattr(trusting, name) != value:
            raise InputError(f"{name}={value!r}: not with trusted_key, for no key signs what it stands for")
    return trusting


def load_twin(model: Model, **trust: Any) -> Model | None:
    """Load the dense baseline of a loaded file for comparison; None without one.

    It runs as the file does: with the same backend and options. A baseline of another form, which that backend does not
    run, has the default backend of its extension, with the options that both backends have.

    Args:
        model: the file.
        trust: ``trusted_key``, ``min_version`` and ``remember`` as in ``load``.

    Raises:
        BackendMissingError: the backend or device for the baseline is not installed.
        Others: as ``load``.
    """
    dense = twin(model.path)
    if dense is None:
        return None
    same = dense.suffix == model.path.suffix
    spec = find_backend(dense, model.backend.name if same else "auto")
    options = {name: value for name, value in asdict(model.options).items() if name in spec.option_names}
    return load(dense, spec.name, **options, **trust)


def _file(path: "str | os.PathLike[str]", precision: str | None) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"give the path of a file or directory, not {type(path).__name__}")
    graph = find_graph(_pinned(Path(path)), precision)
    if not (Path(path).is_dir() or graph.exists()):
        raise _missing(graph)
    return graph


def file_for(graph: Path, path: "str | os.PathLike[str]", backend: str) -> Path:
    """Return the file that a backend runs: of a directory, what was made from the graph where it takes no graphs.

    Args:
        graph: the file of ``path``.
        path: what the user gave, a file or a directory.
        backend: its name, or "auto".
    """
    spec = next((spec for spec in BACKENDS.values() if spec.name == backend), None)
    if spec is None or graph.suffix in spec.suffixes or not Path(path).is_dir():
        return graph
    manifest = read_manifest(graph.parent)
    made = (file for file in _made_from(graph, manifest) if file.suffix in spec.suffixes)
    return next((file for file in made if is_present(file, manifest)), graph)


def _missing(file: Path) -> ManifestError:
    if file.suffix in (".mnn", ".pte", ".tflite"):
        return ManifestError(f"no file {file}: gtp-export convert {file.parent} makes it")
    if file.suffix != ".engine":
        return ManifestError(f"no file {file}: gtp-export export MODEL writes one")
    graph = file.with_suffix(".onnx")
    return ManifestError(f"no file {file}: gtp-export build-engine {graph} makes it on the device that runs it")


def _pinned(path: Path) -> Path:
    """Return a path whose directory is no link, so that a link that is switched meanwhile mixes no two exports."""
    directory = path if path.is_dir() else path.parent
    for _ in range(MOST_LINKS):
        if not directory.is_symlink():
            break
        directory = directory.parent / os.readlink(directory)
    return directory if path.is_dir() else directory / path.name


def choices(graph: Path, manifest: Manifest, given: Mapping[str, Any]) -> list[Choice]:
    """Return the ways to run a graph or an engine that was built from it, the best first; none if neither is there.

    Args:
        graph: of the directory, which may be missing.
        manifest: of the directory.
        given: options of the user. What contradicts them, or does not take them, is not tried.
    """
    files = [file for file in (*_made_from(graph, manifest), graph) if is_present(file, manifest)]
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


def _made_from(graph: Path, manifest: Manifest) -> list[Path]:
    """Return the engines and converted files that were made from a graph, those of its own precision first."""
    made = [name for name, entry in manifest.files.items() if entry.origin and entry.origin[0] == graph.name]
    own = manifest.files[graph.name].precision if graph.name in manifest.files else ""
    return [graph.parent / name for name in sorted(made, key=lambda name: manifest.files[name].precision != own)]


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
            if choice.file != found[0].file:
                model.fallback = "; ".join(f"not {text}" for text in refused)
            level = logging.WARNING if model.fallback else logging.INFO
            why = "".join(f"; not {text}" for text in refused)
            log.log(level, "%s: runs %s%s", choice.file.parent, choice, why)
            return model
    raise AssertionError("no choice")
