"""ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gtp_runtime.errors import BackendMissingError, GTPRuntimeError, ManifestError

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


class OnnxRuntimeBackend:
    """An ONNX file in an ONNX Runtime session.

    Args:
        path: the .onnx file.
        threads: threads of one operator; ONNX Runtime's own choice without.
        provider: "cpu", "cuda" or "tensorrt"; operators that it lacks run on the CPU.

    Raises:
        BackendMissingError: onnxruntime or the provider is not installed.
        ManifestError: ONNX Runtime cannot load the file.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int | None = None, provider: str = "cpu") -> None:
        ort = _import()
        options = ort.SessionOptions()
        if threads:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        chosen = _provider(ort, provider)
        names = list(dict.fromkeys([chosen, PROVIDERS["cpu"]]))
        try:
            self._session: Any = ort.InferenceSession(str(path), options, providers=names)
        except Exception as error:  # onnxruntime's own exceptions share no base class
            if "Could not find an implementation" in str(error):
                raise BackendMissingError(
                    f"ONNX Runtime has no kernels for {path.name} here (bf16 on CPUs): gtp-export build-engine, "
                    "or --backend openvino"
                ) from error
            raise ManifestError(f"ONNX Runtime cannot load {path}: {error}") from error
        if chosen not in self._session.get_providers():
            raise BackendMissingError(f"{chosen} did not start: its CUDA, cuDNN or TensorRT libraries are missing here")
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.info: dict[str, Any] = {"version": ort.__version__, "threads": threads, "provider": provider}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; thread-safe."""
        if self._session is None:
            raise GTPRuntimeError("this model was closed: load it again")
        values = self._session.run(self._outputs, dict(inputs))
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendMissingError("onnxruntime is not installed: pip install 'gtp-export[onnxruntime]'") from error
    return onnxruntime


def _provider(ort: Any, provider: str) -> str:
    if provider not in PROVIDERS:
        raise BackendMissingError(f"no provider is called {provider!r}: choose one of {', '.join(PROVIDERS)}")
    name = PROVIDERS[provider]
    if name not in ort.get_available_providers():
        raise BackendMissingError(
            f"this onnxruntime has no {name}: install onnxruntime-gpu in its place, or use --provider cpu"
        )
    return name
