"""OpenVINO on Intel and Arm CPUs."""

import queue
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gtp_runtime.errors import BackendMissingError, GTPRuntimeError, ManifestError

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoBackend:
    """An ONNX file compiled by OpenVINO for the CPU.

    Args:
        path: the .onnx file.
        threads: threads of one run; OpenVINO's own choice without.
        compute: what it computes in, "fp32" or "bf16" (its own default on CPUs with bf16 instructions).

    Raises:
        BackendMissingError: openvino is not installed.
        ManifestError: OpenVINO cannot load the file.
    """

    name = "openvino"

    def __init__(self, path: Path, threads: int | None = None, compute: str = "fp32") -> None:
        openvino = _import()
        if compute not in PRECISIONS:
            raise BackendMissingError(f"OpenVINO computes in {' or '.join(PRECISIONS)} here, not in {compute!r}")
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": PRECISIONS[compute]}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            self._compiled = core.compile_model(core.read_model(path), "CPU", settings)
        except RuntimeError as error:
            raise ManifestError(f"OpenVINO cannot load {path}: {error}") from error
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed = False
        self.info: dict[str, Any] = {
            "version": openvino.__version__.split("-")[0],
            "threads": threads,
            "compute": compute,
        }

    @contextmanager
    def _request(self) -> Iterator[Any]:
        """Lend an idle request, or make one: a request serves one thread at a time."""
        try:
            request = self._requests.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            yield request
        finally:
            self._requests.put(request)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; thread-safe."""
        if self._closed:
            raise GTPRuntimeError("this model was closed: load it again")
        with self._request() as request:
            results = request.infer(dict(inputs), share_inputs=True)
            return {output.any_name: np.array(value) for output, value in results.items()}

    def close(self) -> None:
        """Free the model."""
        self._closed = True
        self._requests = queue.SimpleQueue()
        self._compiled = None


def _import() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise BackendMissingError("openvino is not installed: pip install 'gtp-export[openvino]'") from error
    return openvino
