"""A candidate: settings of a method on a model, and how its graph runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from gtp_exporters.errors import LimitError
from gtp_models.methods.settings import Settings
from gtp_runtime.backends import BACKENDS, BackendSpec, find_backend, make_options
from gtp_runtime.errors import BackendMissingError, InputError
from gtp_runtime.manifest import MODEL_NAME
from gtp_runtime.precisions import PRECISIONS, TARGETS

if TYPE_CHECKING:
    from gtp_models.plan import Plan  # which needs torch

GRAPH, PLAIN, INT8, DENSE = ".onnx", "fp32", "int8", "dense"
TARGET = "onnxruntime"  # whose limits all graphs keep; only calibrated ones differ by target
COMPUTE = "compute"  # a backend's option: the precision to compute in, whatever the graph's
AMOUNTS = ("num_prop", "keep", "macs", "schedule")  # settings that say how many tokens leave, and where
VALUES = ("alpha", "sparsity", "calibration", "threshold", "moves")  # change numbers, not what is computed


@dataclass(frozen=True)
class Running:
    """How a graph runs.

    Attributes:
        backend: the name of a backend that runs ONNX files, or "auto".
        options: of the backend.
        precision: what users call it.
        written: the precision that the graph is written in: float32 where the backend computes in another by itself.
        target: the runtime whose limits the graph keeps, and that int8 is made for.
    """

    backend: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    precision: str = PLAIN
    written: str = PLAIN
    target: str = TARGET

    @property
    def label(self) -> str:
        """It in words: "onnxruntime fp32"."""
        return f"{self.backend} {self.precision}"

    @property
    def key(self) -> list[Any]:
        """What tells it from others, as plain values."""
        return [self.backend, sorted((name, str(value)) for name, value in self.options.items()), self.precision]

    @property
    def is_calibrated(self) -> bool:
        """Whether its graphs are made from float32 ones, on calibration images."""
        return PRECISIONS[self.written].calibrated

    def in_precision(self, precision: str) -> "Running":
        """Return the same for graphs that are written in another precision."""
        return Running(self.backend, self.options, precision, precision, self.target)


@dataclass(frozen=True)
class Candidate:
    """What is measured.

    Attributes:
        name: of the method or trial, in tables.
        plan: what happens in each layer, with the settings.
        running: how its graph runs.
        batch: images per run.
    """

    name: str
    plan: "Plan"
    running: Running = field(default_factory=Running)
    batch: int = 1

    @property
    def settings(self) -> Settings:
        """The method's settings."""
        return self.plan.settings

    @property
    def label(self) -> str:
        """It in words: its name, which may say the precision, and the precision."""
        precision = self.running.precision
        return self.name if self.name.endswith(precision) else f"{self.name}, {precision}"

    @property
    def graph_key(self) -> str:
        """A text that tells its graph from others."""
        return json.dumps([*self._method, self.running.written, self.running.target, self.batch])

    @property
    def key(self) -> str:
        """A text that tells it from others."""
        return json.dumps([*self._method, self.batch, *self.running.key])

    @property
    def shape_key(self) -> str:
        """A text that tells what latency depends on: what each layer computes for how many tokens, and how it runs."""
        settings = {name: value for name, value in self.settings.to_dict().items() if name not in AMOUNTS + VALUES}
        threshold = getattr(self.settings, "threshold", "") if getattr(self.settings, "sparsity", 1) < 1 else ""
        what = [self.settings.name, settings, threshold, list(self.plan.num_prop), self.plan.layers[0].tokens_in]
        return json.dumps([*what, self.batch, *self.running.key])

    @property
    def needs_calibration(self) -> bool:
        """Whether its graph is made on calibration images: thresholds, or the ranges of int8."""
        return self.running.is_calibrated or self.settings.needs_calibration

    @property
    def _method(self) -> list[Any]:
        return [self.settings.name, self.settings.to_dict()]


def graph_backends() -> dict[str, BackendSpec]:
    """Return the backends that run ONNX files, by name."""
    return {name: spec for name, spec in BACKENDS.items() if GRAPH in spec.suffixes}


def make_runnings(
    backends: Sequence[str], precisions: Sequence[str], options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[Running]:
    """Return every backend in every precision; the first of each backend is fp32, which its others are compared with.

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
        _make_running(_installed(backend), precision, options, defaults)
        for backend in dict.fromkeys(backends)
        for precision in dict.fromkeys((PLAIN, *precisions))
    ]


def running_on(backend: str, options: Mapping[str, Any]) -> Running:
    """Return how a float32 graph runs on one backend, with options as they are.

    Raises:
        InputError, BackendMissingError: a backend that is unknown or not installed, or an option that it does not take.
    """
    spec = find_backend(Path(MODEL_NAME), backend)
    make_options(spec, options)
    return Running(spec.name, options, target=spec.name if spec.name in TARGETS else TARGET)


def _installed(name: str) -> BackendSpec:
    known = graph_backends()
    if name not in known:
        raise InputError(f"backend {name!r} cannot be compared: choose from {', '.join(known)}, which run ONNX files")
    spec = known[name]
    if all(extra.missing() for extra in spec.extras):
        raise BackendMissingError(f"{name} is not installed: {' or '.join(extra.command for extra in spec.extras)}")
    spec.find_device()
    return spec


def _make_running(
    spec: BackendSpec, precision: str, options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Running:
    own = {**{name: value for name, value in defaults.items() if name in spec.option_names}, **options}
    computes = get_args(get_type_hints(spec.options).get(COMPUTE))
    written = precision
    if precision in computes and not PRECISIONS[precision].calibrated:
        own, written = {**own, COMPUTE: precision}, PLAIN
    make_options(spec, own)  # fail early
    target = spec.name if PRECISIONS[written].calibrated and spec.name in TARGETS else TARGET
    return Running(spec.name, own, precision, written, target)
