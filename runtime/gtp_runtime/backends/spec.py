"""What a backend is, the registry of all backends, and the options that they take.

A backend is one module or folder of this package that adds a ``BackendSpec`` to ``BACKENDS`` and imports its engine
only in ``open``. Everything that names backends reads ``BACKENDS``: the options of the command line, their help,
``doctor`` and the messages. What all of them share is here too: the deadline of a call, and the check that the tensors
of a file are those that the manifest says.
"""

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, get_origin, get_type_hints

import numpy as np

from gtp_runtime.cpus import machine_cpus
from gtp_runtime.errors import DeadlineError, InputError, ManifestError
from gtp_runtime.extras import Extra
from gtp_runtime.manifest import FileEntry, Manifest, TensorSpec
from gtp_runtime.manifest.schema import TRACES
from gtp_runtime.registry import Registry

THREADS = {  # the metadata of an option that several backends have
    "help": "CPU threads, 0 for all that this process may use. Default: 1 where latency is measured (bench, compare, "
    "tune, export), else 0"
}


class Backend(Protocol):
    """A loaded file, ready to run; safe to share between threads.

    A backend may have three more methods: ``run_within(inputs, deadline)``, where it can stop a run,
    ``stages(inputs)`` (see ``Latency.stages``), and ``placement()``, where a device may leave operators to another: a
    ``Placement``, or None where only one device could run them.
    """

    name: str
    info: dict[str, Any]  # version, threads, provider, device: what a measurement depends on

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
            ``bool``, ``str``, a ``Literal`` of strings or ``Pairs``, and its metadata has a "help" in words.
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
    runs = f"it runs {BACKENDS[name].runs}; " if name in BACKENDS else ""
    raise InputError(f"{problem} {file.name}: {runs}there are {choices}")


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
    elif kind is str:
        if not isinstance(value, str):
            raise InputError(f"{name}={value!r}: give a name")
    elif kind == Pairs:
        check_pairs(name, value)
    elif isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name}={value!r}: give a whole number")


Pairs = Mapping[str, str]
_PAIR = re.compile(r"([^=,\s]+)=([^,]*)")


def read_pairs(text: str) -> dict[str, str]:
    """Return the pairs of ``device_id=0,trt_fp16_enable=1``: values have no commas.

    Raises:
        InputError: not written so.
    """
    pairs = [_PAIR.fullmatch(part.strip()) for part in text.split(",")]
    if None in pairs:
        raise InputError(f"{text!r}: give NAME=VALUE, and several with commas between them")
    return {pair[1]: pair[2] for pair in pairs if pair}


def check_pairs(name: str, value: Any) -> None:
    """Raise ``InputError`` unless the value of an option maps texts to texts."""
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in (*value, *value.values())):
        raise InputError(f"{name}={value!r}: give a dict of texts, like {{'device_id': '0'}}")


def check_threads(threads: int) -> None:
    """Check a number of threads.

    Raises:
        InputError: it is neither 0 (all) nor between 1 and the number of cores of this machine.
    """
    cores = machine_cpus()
    if not 0 <= threads <= cores:
        raise InputError(f"threads={threads}: give 1 to {cores} (the cores of this machine), or 0 for all")


class Deadline:
    """The time that a call may take, from now on.

    Args:
        timeout: seconds, above 0.

    Raises:
        InputError: an invalid timeout.
    """

    def __init__(self, timeout: float) -> None:
        number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if not (number and math.isfinite(timeout) and timeout > 0):
            raise InputError(f"timeout={timeout!r}: give seconds, above 0, or None")
        self._timeout, self._end = timeout, time.monotonic() + timeout

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            DeadlineError: none is left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.missed()
        return left

    def missed(self) -> DeadlineError:
        """Return the error of a call that was stopped."""
        return DeadlineError(f"the call was stopped after its timeout of {self._timeout:g} s: the next one may be made")


Tensor = tuple[str, list[Any], str]  # name, shape, numpy dtype name
BATCH = "batch"  # of a shape: the first axis is free, whatever an engine calls it
ROLES = ("model", "dense")


def check_tensors(path: Path, inputs: Iterable[Tensor], outputs: Iterable[Tensor], entry: FileEntry) -> None:
    """Check names, shapes and dtypes; their order does not count, for each is looked up by its name.

    Args:
        path: the file, for the message.
        inputs, outputs: what the engine found; TensorRT's inputs and outputs may come together as ``inputs``. A free
            first axis is ``BATCH``.
        entry: what the manifest says.

    Raises:
        ManifestError: they differ; names what does.
    """
    tensors = {name: (shape, dtype) for name, shape, dtype in (*inputs, *outputs)}
    first = [] if entry.batch is None else [BATCH]
    listing = {spec.name: ([*first, *spec.shape[len(first) :]], spec.dtype) for spec in (*entry.inputs, *entry.outputs)}
    for name in dict.fromkeys((*tensors, *listing)):
        if tensors.get(name) != listing.get(name):
            raise ManifestError(
                f"{path} has {_described(name, tensors)}, its manifest says {_described(name, listing)}: export again"
            )


def _described(name: str, tensors: dict[str, tuple[list[Any], str]]) -> str:
    if name not in tensors:
        return f"no tensor {name!r:.60}"
    shape, dtype = tensors[name]
    return f"{name!r:.60} {tuple(shape)} {dtype}"


def check_runnable(path: Path, manifest: Manifest) -> None:
    """Check a file's input and output against the preprocessing and the classes.

    Raises:
        ManifestError: they do not fit; says which.
    """
    entry = manifest.entry(path.name)
    if entry.role not in ROLES:
        raise ManifestError(f"{path} is no model: its role is {entry.role}")
    if problem := _input_problem(entry, manifest) or _output_problem(entry, manifest):
        raise ManifestError(f"the manifest of {path} contradicts itself: {problem}; export again")


def _input_problem(entry: FileEntry, manifest: Manifest) -> str:
    if len(entry.inputs) != 1:
        return f"{len(entry.inputs)} inputs, and a model takes one"
    spec, (height, width) = entry.inputs[0], manifest.preprocessing.crop
    forms = {"float32": [3, height, width], "uint8": [height, width, 3]}
    if spec.dtype not in forms:
        return f"an input of {spec.dtype}, and images are float32 or uint8"
    if len(spec.shape) != 4 or spec.shape[1:] != forms[spec.dtype]:
        return f"an input of shape {spec.shape}, and images are (B, {', '.join(map(str, forms[spec.dtype]))})"
    return ""


def _output_problem(entry: FileEntry, manifest: Manifest) -> str:
    if not entry.outputs:
        return "no output"
    names = [spec.name for spec in (*entry.inputs, *entry.outputs)]
    if len(set(names)) != len(names):
        return "tensors of the same name"
    if entry.outputs[0].name in TRACES:
        return f"no answers before {entry.outputs[0].name}"
    batch = entry.inputs[0].shape[0]
    problems = (
        _trace_problem(spec, batch) if spec.name in TRACES else _answer_problem(spec, batch, manifest)
        for spec in entry.outputs
    )
    return next(filter(None, problems), "")


def _answer_problem(spec: TensorSpec, batch: int, manifest: Manifest) -> str:
    classes, axes = manifest.model.num_classes, len(spec.shape)
    if spec.dtype != "float32" or spec.shape[0] != batch or (axes != 2 and not manifest.is_dense):
        form = "..." if manifest.is_dense else "classes"
        return f"answers {tuple(spec.shape)} {spec.dtype}, and they are ({batch}, {form}) float32"
    if classes and spec.shape[1:] != [classes]:
        return f"{spec.shape[1]} answers for each image, and {classes} classes"
    return ""


def _trace_problem(spec: TensorSpec, batch: int) -> str:
    if spec.dtype != "int32" or len(spec.shape) != 2 or spec.shape[0] != batch:
        return f"output {spec.name} {tuple(spec.shape)} {spec.dtype}, and tokens are ({batch}, tokens) int32"
    return ""
