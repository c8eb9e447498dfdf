"""OpenVINO on Intel and Arm CPUs."""

import queue
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gtp_runtime.backends.spec import BACKENDS, THREADS, BackendSpec, Deadline, Tensor, check_tensors, check_threads
from gtp_runtime.cpus import threads_of
from gtp_runtime.errors import BackendMissingError, DeviceError, GTPRuntimeError, ManifestError
from gtp_runtime.extras import Extra
from gtp_runtime.manifest import FileEntry
from gtp_runtime.messages import one_line
from gtp_runtime.opening import named_in_utf8

EXTRA = Extra("openvino", {"openvino": "openvino"})
Compute = Literal["fp32", "bf16"]
PRECISIONS: dict[Compute, str] = {"fp32": "f32", "bf16": "bf16"}  # OpenVINO's names


@dataclass(frozen=True)
class OpenVinoOptions:
    """How OpenVINO runs a file.

    Attributes:
        threads: threads per run; 0 for all that this process may use.
        compute: precision to compute in, whatever the precision of the file. OpenVINO's own default is bf16 on CPUs
            with bf16 instructions.
    """

    threads: int = field(default=0, metadata=THREADS)
    compute: Compute = field(default="fp32", metadata={"help": "precision to compute in"})

    def __post_init__(self) -> None:
        check_threads(self.threads)


class OpenVinoBackend:
    """An ONNX file compiled by OpenVINO for the CPU.

    Args:
        path: the .onnx file.
        entry: what the manifest says of it.
        options: how to run it.

    Raises:
        BackendMissingError: openvino is not installed.
        ManifestError: OpenVINO cannot load the file, or its tensors are not those that the manifest says.
    """

    name = "openvino"

    def __init__(self, path: Path, entry: FileEntry, options: OpenVinoOptions) -> None:
        openvino = _import()
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": PRECISIONS[options.compute],
        }
        if wanted := threads_of(options.threads):
            settings["INFERENCE_NUM_THREADS"] = wanted
        try:
            core = openvino.Core()
            with named_in_utf8(path) as place:
                self._compiled: Any = core.compile_model(core.read_model(place), "CPU", settings)
        except RuntimeError as error:
            raise ManifestError(f"OpenVINO cannot load {path}: {one_line(error)}") from error
        check_tensors(path, map(_tensor, self._compiled.inputs), map(_tensor, self._compiled.outputs), entry)
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._name = path.name
        self.info: dict[str, Any] = {
            "version": openvino.__version__.split("-")[0],
            "threads": int(options.threads),
            "compute": options.compute,
        }

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
            return _by_name(request.infer(dict(inputs), share_inputs=True))

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
                return _by_name(request.results)
            request.cancel()
            with suppress(RuntimeError):  # which says that it was cancelled
                request.wait()
            raise deadline.missed()

    def close(self) -> None:
        """Free the model."""
        self._requests = queue.SimpleQueue()
        self._compiled = None


def _by_name(results: Any) -> dict[str, np.ndarray]:
    return {output.any_name: np.array(value) for output, value in results.items()}


def _import() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise BackendMissingError(f"openvino is not installed: {EXTRA.command}") from error
    return openvino


def _tensor(port: Any) -> Tensor:
    shape = list(port.shape) if port.partial_shape.is_static else [str(port.partial_shape)]
    return port.any_name, shape, port.element_type.to_dtype().name


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
