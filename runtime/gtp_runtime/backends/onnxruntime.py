"""ONNX Runtime."""

import json
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gtp_runtime.backends.spec import (
    BACKENDS,
    THREADS,
    Attempt,
    BackendSpec,
    Deadline,
    Pairs,
    Tensor,
    check_tensors,
    check_threads,
)
from gtp_runtime.cpus import threads_of
from gtp_runtime.errors import BackendMissingError, DeviceError, GTPRuntimeError, InputError, ManifestError
from gtp_runtime.extras import Extra
from gtp_runtime.manifest import FileEntry
from gtp_runtime.messages import one_line
from gtp_runtime.opening import named_in_utf8
from gtp_runtime.placement import Placement, place

EXTRA = Extra("onnxruntime", {"onnxruntime": "onnxruntime"})
PROVIDERS = {  # as ONNX Runtime names them, its own names for what it can be built with
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "nvtensorrtrtx": "NvTensorRTRTXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
    "acl": "ACLExecutionProvider",
    "armnn": "ArmNNExecutionProvider",
    "rknpu": "RknpuExecutionProvider",
    "vsinpu": "VSINPUExecutionProvider",
    "vitisai": "VitisAIExecutionProvider",
    "cann": "CANNExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "azure": "AzureExecutionProvider",
}
PACKAGES = {  # builds that have a provider and take the place of onnxruntime
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
    "openvino": "onnxruntime-openvino",
    "directml": "onnxruntime-directml",
    "migraphx": "onnxruntime-migraphx",
    "cann": "onnxruntime-cann",
}
RECORD = "session.record_ep_graph_assignment_info"  # since ONNX Runtime 1.24


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """How ONNX Runtime runs a file.

    Attributes:
        threads: threads per operator; 0 for all that this process may use.
        provider: the execution provider, a key of ``PROVIDERS`` or ONNX Runtime's own name; operators that it does not
            support run on the CPU, and ``Model.placement`` tells which.
        provider_options: of the provider, as ONNX Runtime documents them: {"device_id": "0"}. Not for "cpu".

    Raises:
        InputError: no such provider, options for "cpu", or an invalid number of threads.
    """

    threads: int = field(default=0, metadata=THREADS)
    provider: str = field(default="cpu", metadata={"help": "execution provider"})
    provider_options: Pairs = field(
        default_factory=dict, metadata={"help": "options of the provider, NAME=VALUE,…, as ONNX Runtime documents them"}
    )

    def __post_init__(self) -> None:
        check_threads(self.threads)
        object.__setattr__(self, "provider", short_name(self.provider))
        if self.provider_options and self.provider == "cpu":
            raise InputError("provider_options: cpu takes none; name the provider that they are for (--provider)")


def short_name(provider: str) -> str:
    """Return the key in ``PROVIDERS`` of a name or of ONNX Runtime's own name ("CUDAExecutionProvider").

    Raises:
        InputError: neither.
    """
    names = {name.lower(): short for short, name in PROVIDERS.items()}
    short = names.get(provider.lower(), provider.lower())
    if short not in PROVIDERS:
        raise InputError(f"provider={provider!r}: choose one of {', '.join(PROVIDERS)}")
    return short


class OnnxRuntimeBackend:
    """An ONNX file in an ONNX Runtime session.

    Args:
        path: the .onnx file.
        entry: what the manifest says of it.
        options: how to run it.

    Raises:
        BackendMissingError: onnxruntime or the provider is not installed.
        DeviceError: the provider's device refuses.
        ManifestError: ONNX Runtime cannot load the file, or its tensors are not those that the manifest says.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, entry: FileEntry, options: OnnxRuntimeOptions) -> None:
        ort = import_onnxruntime()
        provider = _provider(ort, options.provider)
        self._ort, self._path, self._name, self._entry, self._options = ort, path, path.name, entry, options
        self._session: Any = _session(ort, path, _settings(ort, options), options)
        if provider not in self._session.get_providers():
            raise BackendMissingError(f"{provider} did not start: a library or a device that it needs is missing here")
        self._placement = _recorded(self._session, options.provider)
        given, made = self._session.get_inputs(), self._session.get_outputs()
        check_tensors(path, map(tensor_of, given), map(tensor_of, made), entry)
        self._outputs = [output.name for output in made]
        self.info: dict[str, Any] = {
            "version": ort.__version__,
            "threads": int(options.threads),
            "provider": options.provider,
            **({"provider_options": dict(options.provider_options)} if options.provider_options else {}),
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; thread-safe."""
        return self._run(inputs, None)

    def run_within(self, inputs: Mapping[str, np.ndarray], deadline: Deadline) -> dict[str, np.ndarray]:
        """Run once, and stop between two operators when the deadline is over.

        Raises:
            DeadlineError: it was.
        """
        options = self._ort.RunOptions()
        timer = threading.Timer(deadline.left(), setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            return self._run(inputs, options)
        except DeviceError as error:
            raise (deadline.missed() if options.terminate else error) from error.__cause__
        finally:
            timer.cancel()

    def _run(self, inputs: Mapping[str, np.ndarray], options: Any) -> dict[str, np.ndarray]:
        session = self._session  # another thread may close the model meanwhile
        if session is None:
            raise GTPRuntimeError("this model was closed: load it again")
        try:
            values = session.run(self._outputs, dict(inputs), options)
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise DeviceError(f"ONNX Runtime cannot run {self._name}: {one_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))

    def placement(self) -> Placement | None:
        """Return which operators the provider takes and which the CPU; None for the CPU alone.

        ONNX Runtime records it since 1.24. Older ones tell it in a profile, which takes a second session and one run
        of it, and counts what the provider has fused as one operator.

        Raises:
            DeviceError: that session cannot run.
        """
        if self._options.provider != "cpu" and self._placement is None:
            nodes = _profiled(self._ort, self._path, self._entry, self._options)
            self._placement = place(nodes, self._options.provider)
        return self._placement

    def close(self) -> None:
        """Free the session."""
        self._session = None


def import_onnxruntime() -> Any:
    """Return the module onnxruntime. Raises ``BackendMissingError`` where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendMissingError(f"onnxruntime is not installed: {EXTRA.command}") from error
    return onnxruntime


def _provider(ort: Any, provider: str) -> str:
    name = PROVIDERS[provider]
    if name not in ort.get_available_providers():
        package = PACKAGES.get(provider)
        advice = f"install {package} in its place" if package else "install a build that has it"
        raise BackendMissingError(f"this onnxruntime has no {name}: {advice}, or use --provider cpu")
    return name


def _settings(ort: Any, options: OnnxRuntimeOptions) -> Any:
    settings = ort.SessionOptions()
    if wanted := threads_of(options.threads):
        settings.intra_op_num_threads = wanted
        settings.inter_op_num_threads = 1
    if options.provider != "cpu":
        settings.add_session_config_entry(RECORD, "1")
    return settings


def _recorded(session: Any, provider: str) -> Placement | None:
    """Return where the operators of a session run; None for the CPU alone, and where ONNX Runtime is too old."""
    recorded = getattr(session, "get_provider_graph_assignment_info", None)
    if provider == "cpu" or recorded is None:
        return None
    nodes = ((short_name(part.ep_name), node.op_type) for part in recorded() for node in part.get_nodes())
    return place(nodes, provider)


def _profiled(ort: Any, path: Path, entry: FileEntry, options: OnnxRuntimeOptions) -> Iterator[tuple[str, str]]:
    """Yield the provider and the type of each operator, from the profile of one run."""
    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(ort, options)
        settings.enable_profiling, settings.profile_file_prefix = True, str(Path(folder, "profile"))
        session = _session(ort, path, settings, options)
        try:
            session.run(None, {spec.name: np.zeros(spec.shape, spec.dtype) for spec in entry.inputs})
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise DeviceError(f"ONNX Runtime cannot run {path.name}: {one_line(error)}") from error
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            yield short_name(event["args"]["provider"]), event["args"]["op_name"]


def _session(ort: Any, path: Path, settings: Any, options: OnnxRuntimeOptions) -> Any:
    provider = PROVIDERS[options.provider]
    names = [(provider, dict(options.provider_options)), *([] if options.provider == "cpu" else [PROVIDERS["cpu"]])]
    try:
        with named_in_utf8(path) as place:
            session = ort.InferenceSession(str(place), settings, providers=names, enable_fallback=0)
        session.disable_fallback()  # it would print, and go on with another provider
        return session
    except Exception as error:  # onnxruntime's own exceptions share no base class
        if "Could not find an implementation" in str(error):
            raise BackendMissingError(
                f"ONNX Runtime has no kernels for {path.name} here (bf16 on CPUs): gtp-export build-engine, "
                "or --backend openvino"
            ) from error
        if provider != PROVIDERS["cpu"]:
            raise DeviceError(f"{provider} cannot load {path}: {one_line(error)}") from error
        raise ManifestError(f"ONNX Runtime cannot load {path}: {one_line(error)}") from error


def tensor_of(value: Any) -> Tensor:
    """Return name, shape and numpy's name of the type of an input or output of a session."""
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    return value.name, list(value.shape), {"float": "float32", "double": "float64"}.get(kind, kind)


BACKENDS.add(
    BackendSpec(
        name="onnxruntime",
        runs="ONNX files with ONNX Runtime",
        suffixes=(".onnx",),
        default_for=(".onnx",),
        extras=(EXTRA,),
        options=OnnxRuntimeOptions,
        open=OnnxRuntimeBackend,
        attempts=(Attempt(1, {"provider": "cuda"}), Attempt(2)),
    )
)
