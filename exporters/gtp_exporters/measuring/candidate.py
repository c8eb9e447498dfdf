"""A candidate: settings of a method on a model, and how its graph runs: as ONNX, or converted to another format."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from gtp_exporters.converting.formats import FORMATS
from gtp_exporters.errors import LimitError
from gtp_models.methods.settings import Settings
from gtp_runtime.backends import BACKENDS, BackendSpec, find_backend, make_options
from gtp_runtime.errors import BackendMissingError, InputError
from gtp_runtime.manifest import MODEL_NAME
from gtp_runtime.messages import option_words
from gtp_runtime.precisions import PRECISIONS, TARGETS, converted_names

if TYPE_CHECKING:
    from gtp_models.plan import Plan  # which needs torch

GRAPH, PLAIN, INT8, DENSE = ".onnx", "fp32", "int8", "dense"
TARGET = "onnxruntime"  # whose limits all graphs keep; only calibrated ones differ by target
COMPUTE = "compute"  # a backend's option: the precision to compute in, whatever the graph's
SIMULATED = (
    "its files are made for one SoC, whose NPU is simulated where they are made, so that times are not valid: "
    "gtp-export build-engine makes them, gtp-export bench times them on the device; "
)
AMOUNTS = ("num_prop", "keep", "macs", "schedule")  # settings that say how many tokens leave, and where
VALUES = ("alpha", "sparsity", "calibration", "threshold", "moves")  # change numbers, not what is computed


@dataclass(frozen=True)
class Running:
    """How a graph runs.

    Attributes:
        backend: the name of one of ``measured_backends``, or "auto".
        options: of the backend.
        precision: what users call it.
        written: the precision that the file is written in: float32 where the backend computes in another by itself.
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
    def format(self) -> str:
        """The format that graphs are converted to for the backend; "" where it runs ONNX files."""
        return self.backend if self.backend in FORMATS else ""

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that its files are written in without images, float32 first."""
        known = FORMATS[self.format].precisions if self.format else converted_names(self.target)
        return tuple(name for name in known if not PRECISIONS[name].calibrated)

    @property
    def conversion(self) -> list[str]:
        """The options of ``gtp-export convert`` that make its files of an export; none where it runs ONNX files."""
        if not self.format:
            return []
        return option_words(to=self.format, precision=None if self.written == PLAIN else self.written)

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
    def unconverted(self) -> "Candidate":
        """The same as an ONNX file in float32."""
        return replace(self, running=Running())

    @property
    def label(self) -> str:
        """It in words: its name, which may say the precision, and the precision."""
        precision = self.running.precision
        return self.name if self.name.endswith(precision) else f"{self.name}, {precision}"

    @property
    def graph_key(self) -> str:
        """A text that tells its file from others."""
        running = self.running
        return json.dumps([*self._method, running.written, running.target, running.format, self.batch])

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


def measured_backends() -> dict[str, BackendSpec]:
    """Return the backends that candidates are measured on, by name: they run ONNX files, or what is made of these.

    Files for one SoC are not measured: where they are made its NPU is simulated, in times that mean nothing.
    """
    made = {name: BACKENDS[name] for name, form in FORMATS.items() if form.backend == name and not form.socs}
    return dict(sorted((graph_backends() | made).items()))


def file_for(backend: str) -> Path:
    """Return the name of a file that a backend runs: that of the graph, or of what it is converted to."""
    return Path(MODEL_NAME).with_suffix(FORMATS[backend].suffix if backend in FORMATS else GRAPH)


def make_runnings(
    backends: Sequence[str], precisions: Sequence[str], options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> list[Running]:
    """Return every backend in every precision; the first of each backend is fp32, which its others are compared with.

    Args:
        backends: names of ``measured_backends``.
        precisions: names of precisions.
        options: options that all these backends take.
        defaults: options for those that take them.

    Raises:
        InputError: an unknown backend, one whose files are not measured, or an option that it does not take.
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
    """Return how a float32 graph, or what it is converted to, runs on one backend, with options as they are.

    Raises:
        InputError, BackendMissingError: as ``make_runnings``; "auto" is the backend of ONNX files.
    """
    spec = find_backend(Path(MODEL_NAME)) if backend == "auto" else _installed(backend)
    make_options(spec, options)
    return Running(spec.name, options, target=spec.name if spec.name in TARGETS else TARGET)


def _installed(name: str) -> BackendSpec:
    known = measured_backends()
    if name not in known:
        why = SIMULATED if name in FORMATS and FORMATS[name].socs else ""
        raise InputError(f"backend {name!r} cannot be compared: {why}choose from {', '.join(known)}")
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
