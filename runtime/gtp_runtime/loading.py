"""Opens a file of an artifact directory, once it is what its manifest says."""

import warnings
from pathlib import Path

from gtp_runtime.errors import BackendMissingError, ManifestError, RandomWeightsWarning
from gtp_runtime.manifest import check_file, read_manifest
from gtp_runtime.model import Model

BACKENDS = {".onnx": ("onnxruntime", "openvino"), ".engine": ("tensorrt",)}  # by a file's ending, the default first


def load(
    path: str | Path,
    backend: str = "auto",
    *,
    threads: int | None = None,
    provider: str = "cpu",
    compute: str = "fp32",
    host_code: bool = False,
) -> Model:
    """Load a file that gtp-export wrote.

    Args:
        path: the file (.onnx, .engine), or its directory, which means ``model.onnx``.
        backend: "auto" (by the file's ending), "onnxruntime", "openvino" or "tensorrt".
        threads: threads to run with; the backend's own choice without.
        provider: ONNX Runtime's: "cpu", "cuda" or "tensorrt".
        compute: what OpenVINO computes in, whatever the file is written in: "fp32" or "bf16".
        host_code: let a TensorRT engine run code of its own on the CPU; only for engines that you built.

    Raises:
        ManifestError: no such file, no manifest, or the file is not what its manifest says (sha256).
        BackendMissingError: what would run it is not installed.
        EngineMismatchError: an engine for another TensorRT or GPU.
        DeviceError: CUDA or TensorRT refuses.
    """
    file = Path(path)
    file = file / "model.onnx" if file.is_dir() else file
    if not file.exists():
        raise ManifestError(f"no file {file}: gtp-export export MODEL writes one")
    manifest = read_manifest(file.parent)
    check_file(file, manifest)
    if manifest.weights.source == "random":
        warnings.warn(
            f"{file} was exported with random weights ({manifest.weights.detail}): its answers mean nothing",
            RandomWeightsWarning,
            stacklevel=2,
        )
    name = _choose(file, backend)
    if name == "tensorrt":
        from gtp_runtime.backends.tensorrt import TensorRTBackend

        return Model(file, manifest, TensorRTBackend(file, manifest.entry(file.name), host_code))
    if name == "openvino":
        from gtp_runtime.backends.openvino import OpenVinoBackend

        return Model(file, manifest, OpenVinoBackend(file, threads, compute))
    from gtp_runtime.backends.onnxruntime import OnnxRuntimeBackend

    return Model(file, manifest, OnnxRuntimeBackend(file, threads, provider))


def _choose(file: Path, backend: str) -> str:
    fitting = BACKENDS.get(file.suffix, ())
    if backend == "auto" and fitting:
        return fitting[0]
    if backend not in fitting:
        known = "; ".join(f"{suffix}: {', '.join(names)}" for suffix, names in BACKENDS.items())
        raise BackendMissingError(f"backend {backend!r} does not run {file.name}: there are {known}")
    return backend
