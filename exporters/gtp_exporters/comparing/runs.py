"""How cases run: on which backend, in which precision, and from which graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args, get_type_hints

from gtp_exporters.errors import LimitError
from gtp_runtime.backends import BACKENDS, BackendSpec, make_options
from gtp_runtime.errors import BackendMissingError, InputError
from gtp_runtime.precisions import PRECISIONS, TARGETS

GRAPH, PLAIN = ".onnx", "fp32"
TARGET = "onnxruntime"  # whose limits all graphs keep; only int8 differs by target
COMPUTE = "compute"  # a backend's option: the precision to compute in, whatever the graph's


@dataclass(frozen=True)
class Form:
    """The form of a graph: its precision, and the runtime whose limits are checked and that int8 is made for."""

    precision: str
    target: str


@dataclass(frozen=True)
class Run:
    """A backend and a precision.

    Attributes:
        backend: the backend's name.
        precision: what users call it.
        form: of the graph that is loaded.
        options: of the backend.
        is_baseline: whether the dense model here is what all runs of the backend are compared with.
        is_wanted: whether methods are measured here; otherwise the dense baseline alone is.
    """

    backend: str
    precision: str
    form: Form
    options: Mapping[str, Any]
    is_baseline: bool
    is_wanted: bool

    @property
    def label(self) -> str:
        """The run in words."""
        return f"{self.backend} {self.precision}"


def make_runs(
    backends: Sequence[str], precisions: Sequence[str], options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[Run]:
    """Return the runs of every backend in every precision; the first of each backend is fp32, its dense baseline's.

    Args:
        backends: names of backends that run ONNX files.
        precisions: names of precisions.
        options: options that all these backends take.
        defaults: options for those that take them.

    Raises:
        InputError: an unknown backend, one that runs no ONNX files, or an option that it does not take.
        LimitError: an unknown precision.
        BackendMissingError, DeviceError: a backend that is not installed here.
    """
    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown:
        raise LimitError(f"precisions={', '.join(unknown)} are unknown: choose from {', '.join(PRECISIONS)}")
    if COMPUTE in options:
        raise InputError(f"{COMPUTE} is chosen by precisions here: leave it out")
    return [
        replace(_run(_spec(backend), precision, options, defaults), is_wanted=precision in precisions)
        for backend in dict.fromkeys(backends)
        for precision in dict.fromkeys((PLAIN, *precisions))
    ]


def graph_backends() -> dict[str, BackendSpec]:
    """Return the backends that run ONNX files, by name."""
    return {name: spec for name, spec in BACKENDS.items() if GRAPH in spec.suffixes}


def _spec(name: str) -> BackendSpec:
    known = graph_backends()
    if name not in known:
        raise InputError(f"backend {name!r} cannot be compared: choose from {', '.join(known)}, which run ONNX files")
    spec = known[name]
    if all(extra.missing() for extra in spec.extras):
        raise BackendMissingError(f"{name} is not installed: {' or '.join(extra.command for extra in spec.extras)}")
    spec.find_device()
    return spec


def _run(spec: BackendSpec, precision: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> Run:
    given = {**{name: value for name, value in defaults.items() if name in spec.option_names}, **options}
    computes = get_args(get_type_hints(spec.options).get(COMPUTE))
    if precision in computes and not PRECISIONS[precision].calibrated:
        given, made = {**given, COMPUTE: precision}, PLAIN
    else:
        made = precision
    make_options(spec, given)  # fail early
    own = PRECISIONS[made].calibrated and spec.name in TARGETS
    form = Form(made, spec.name if own else TARGET)
    return Run(spec.name, precision, form, given, is_baseline=precision == PLAIN, is_wanted=True)
