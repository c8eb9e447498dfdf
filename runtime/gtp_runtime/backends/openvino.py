"""OpenVINO on CPUs, and on Intel's GPUs and NPUs."""

import queue
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gtp_runtime.backends.spec import (
    BACKENDS,
    BATCH,
    THREADS,
    BackendSpec,
    Deadline,
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

EXTRA = Extra("openvino", {"openvino": "openvino"})
Compute = Literal["fp32", "bf16", "fp16"]
PRECISIONS: dict[Compute, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}  # OpenVINO's names
MODES = ("AUTO", "MULTI", "HETERO")  # that spread a model over devices
DEVICES = ("CPU", "GPU", "NPU")
_DEVICE = re.compile(rf"({'|'.join(DEVICES)})(\.\d+)?")
DATA = ("Constant", "Parameter", "Result")  # no operators


@dataclass(frozen=True)
class OpenVinoOptions:
    """How OpenVINO runs a file.

    Attributes:
        threads: threads per run; 0 for all that this process may use.
        compute: precision to compute in, whatever the precision of the file. OpenVINO's own default is bf16 on CPUs
            with bf16 instructions. NPUs compute in fp16 alone.
        device: "CPU", "GPU", "GPU.1", "NPU", or a mode of OpenVINO with its devices: "AUTO", "AUTO:GPU,CPU",
            "MULTI:GPU,CPU", "HETERO:NPU,CPU" (which gives the second what the first does not support).

    Raises:
        InputError: not written so, an NPU with another precision than fp16, or an invalid number of threads.
    """

    threads: int = field(default=0, metadata=THREADS)
    compute: Compute = field(default="fp32", metadata={"help": "precision to compute in"})
    device: str = field(default="CPU", metadata={"help": "CPU, GPU, NPU, GPU.1, AUTO, AUTO:GPU,CPU, HETERO:NPU,CPU"})

    def __post_init__(self) -> None:
        check_threads(self.threads)
        object.__setattr__(self, "device", device_name(self.device))
        if any(device.startswith("NPU") for device in listed_devices(self.device)) and self.compute != "fp16":
            raise InputError(f"device={self.device!r}: NPUs compute in fp16: use --compute fp16")


def device_name(device: str) -> str:
    """Return a device's name as OpenVINO writes it, in capitals. Raises as ``listed_devices``."""
    name = device.upper()
    listed_devices(name)
    return name


def listed_devices(device: str) -> list[str]:
    """Return the devices that a name lists, in order: none for "AUTO" alone, where OpenVINO chooses.

    Raises:
        InputError: not a device or a mode with devices.
    """
    mode, _, rest = device.partition(":") if device.startswith(MODES) else ("", "", device)
    devices = rest.split(",") if mode else [rest]
    if device == "AUTO":
        return []
    if mode not in ("", *MODES) or not all(map(_DEVICE.fullmatch, devices)):
        raise InputError(
            f"device={device!r}: give {', '.join(DEVICES)} (GPU.1 for the second), AUTO, or AUTO:, MULTI: or HETERO: "
            "and devices: AUTO:GPU,CPU"
        )
    return devices


class OpenVinoBackend:
    """An ONNX file compiled by OpenVINO for a device.

    Args:
        path: the .onnx file.
        entry: what the manifest says of it.
        options: how to run it.

    Raises:
        BackendMissingError: openvino is not installed, or this machine has no such device.
        DeviceError: the device refuses the file or the precision.
        ManifestError: OpenVINO cannot load the file, or its tensors are not those that the manifest says.
    """

    name = "openvino"

    def __init__(self, path: Path, entry: FileEntry, options: OpenVinoOptions) -> None:
        openvino = _import()
        core = openvino.Core()
        check_devices(options.device, list(core.available_devices))
        model = _read(core, path)
        try:
            if entry.batch is not None:
                _bound(openvino, model, entry)
            self._compiled: Any = core.compile_model(model, options.device, _settings(options))
            self._placement = _placed(core, model, options.device) if options.device.startswith("HETERO") else None
            used = _precisions(self._compiled)
            devices = [name.strip("()") for name in self._compiled.get_property("EXECUTION_DEVICES")]
        except RuntimeError as error:
            if options.device != "CPU":
                raise DeviceError(f"{options.device} cannot load {path}: {one_line(error)}") from error
            raise _unreadable(path, error) from error
        if others := sorted(set(used) - {PRECISIONS[options.compute]}):
            raise DeviceError(
                f"OpenVINO computes in {', '.join(others)} on {options.device} of this machine, not in "
                f"{options.compute}: use another --compute"
            )
        listed = {spec.name for spec in (*entry.inputs, *entry.outputs)}
        inputs, outputs = (
            [_tensor(port, listed) for port in ports] for ports in (self._compiled.inputs, self._compiled.outputs)
        )
        check_tensors(path, inputs, outputs, entry)
        self._outputs = [name for name, *_ in outputs]
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._name = path.name
        self.info: dict[str, Any] = {
            "version": openvino.__version__.split("-")[0],
            **({"threads": int(options.threads)} if "CPU" in devices else {}),
            "compute": options.compute,
            "device": ", ".join(devices),
            "requested": options.device,
        }

    def placement(self) -> Placement | None:
        """Return which operators run on which device with ``HETERO``; None where one device runs the whole file."""
        return self._placement

    @contextmanager
    def _request(self) -> Iterator[Any]:
        """Lend an idle request, or make one: a request serves one thread at a time."""
        compiled, requests = self._compiled, self._requests  # another thread may close the model meanwhile
        if compiled is None:
            raise GTPRuntimeError("this model was closed: load it again")
        try:
            request = requests.get_nowait()
        except queue.Empty:
            request = compiled.create_infer_request()
        try:
            yield request
        except RuntimeError as error:
            raise DeviceError(f"OpenVINO cannot run {self._name}: {one_line(error)}") from error
        finally:
            requests.put(request)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; thread-safe."""
        with self._request() as request:
            return self._by_name(request.infer(dict(inputs), share_inputs=True))

    def run_within(self, inputs: Mapping[str, np.ndarray], deadline: Deadline) -> dict[str, np.ndarray]:
        """Run once, and stop between two operators when the deadline is over.

        Raises:
            DeadlineError: it was.
        """
        given = dict(inputs)  # shared with the request until it is done
        milliseconds = max(1, round(1e3 * deadline.left()))
        with self._request() as request:
            request.start_async(given, share_inputs=True)
            if request.wait_for(milliseconds):
                return self._by_name(request.results)
            request.cancel()
            with suppress(RuntimeError):  # which says that it was cancelled
                request.wait()
            raise deadline.missed()

    def _by_name(self, results: Any) -> dict[str, np.ndarray]:
        return {name: np.array(results[index]) for index, name in enumerate(self._outputs)}

    def close(self) -> None:
        """Free the model."""
        self._requests = queue.SimpleQueue()
        self._compiled = None


def check_devices(device: str, available: list[str]) -> None:
    """Check that this machine has the devices that a name lists.

    Args:
        device: as ``OpenVinoOptions.device``.
        available: as OpenVINO names those of this machine: "CPU", "GPU.0", "GPU.1".

    Raises:
        BackendMissingError: it lacks one.
    """
    for name in listed_devices(device):
        if not any(name in (other, other.partition(".")[0]) for other in available):
            raise BackendMissingError(
                f"OpenVINO finds no {name} on this machine (there is {', '.join(available) or 'none'}): install the "
                "device's driver, or choose another --device"
            )


def _read(core: Any, path: Path) -> Any:
    try:
        with named_in_utf8(path) as place:
            return core.read_model(place)
    except RuntimeError as error:
        raise _unreadable(path, error) from error


def _bound(openvino: Any, model: Any, entry: FileEntry) -> None:
    """Tell OpenVINO the range of a free first axis: an NPU needs it, and memory is planned by it."""
    assert entry.batch is not None
    first = openvino.Dimension(entry.batch.min, entry.batch.max)
    shapes = {spec.name: openvino.PartialShape([first, *spec.shape[1:]]) for spec in entry.inputs}
    model.reshape(shapes)


def _unreadable(path: Path, error: RuntimeError) -> ManifestError:
    return ManifestError(f"OpenVINO cannot load {path}: {one_line(error)}")


def _settings(options: OpenVinoOptions) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISIONS[options.compute],
    }
    if options.device.startswith("AUTO"):  # else the CPU answers first, and the chosen device later
        settings |= {"ENABLE_STARTUP_FALLBACK": False, "ENABLE_RUNTIME_FALLBACK": False}
    cpu = {"INFERENCE_NUM_THREADS": wanted} if (wanted := threads_of(options.threads)) else {}
    if options.device.startswith(MODES):
        return {**settings, "DEVICE_PROPERTIES": {"CPU": cpu}} if cpu and _may_use_cpu(options.device) else settings
    return {**settings, **cpu} if options.device.startswith("CPU") else settings


def _may_use_cpu(device: str) -> bool:
    devices = listed_devices(device)
    return not devices or "CPU" in devices


def _precisions(compiled: Any) -> list[str]:
    """Return OpenVINO's names of the precisions that a model is computed in: a CPU takes another one in silence."""
    name = "INFERENCE_PRECISION_HINT"
    if name in compiled.get_property("SUPPORTED_PROPERTIES"):
        return [compiled.get_property(name).get_type_name()]
    devices = compiled.get_property("DEVICE_PROPERTIES").values()
    return [settings[name].get_type_name() for settings in devices if name in settings]


def _placed(core: Any, model: Any, device: str) -> Placement:
    """Return where ``HETERO`` runs each operator; what its first device does not support has fallen back."""
    types = {operator.get_friendly_name(): operator.get_type_name() for operator in model.get_ops()}
    devices = core.query_model(model, device)
    operators = ((used, types.get(name, "")) for name, used in devices.items() if types.get(name) not in DATA)
    return place(operators, listed_devices(device)[0])


def _import() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise BackendMissingError(f"openvino is not installed: {EXTRA.command}") from error
    return openvino


def _tensor(port: Any, listed: Collection[str]) -> Tensor:
    """Describe a port. A Cast that does nothing is left out, and its output then has the name of its input as well."""
    name = next((name for name in port.names if name in listed), port.any_name)
    return name, _shape(port.partial_shape), port.element_type.to_dtype().name


def _shape(partial: Any) -> list[Any]:
    """Return the shape of a port; where more than the first axis is free, OpenVINO's words for it."""
    sizes = list(partial) if partial.rank.is_static else []
    if not sizes or any(size.is_dynamic for size in sizes[1:]):
        return [] if partial.is_static else [str(partial)]
    first, *rest = sizes
    return [BATCH if first.is_dynamic else first.get_length(), *(size.get_length() for size in rest)]


BACKENDS.add(
    BackendSpec(
        name="openvino",
        runs="ONNX files with OpenVINO",
        suffixes=(".onnx",),
        default_for=(),
        extras=(EXTRA,),
        options=OpenVinoOptions,
        open=OpenVinoBackend,
    )
)
