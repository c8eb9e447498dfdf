"""Opens a file of an artifact directory, once it is what its manifest says."""

import warnings
from pathlib import Path

from gtp_runtime.backends import Backend
from gtp_runtime.errors import BackendMissingError, ManifestError, RandomWeightsWarning
from gtp_runtime.manifest import FileEntry, check_file, read_manifest
from gtp_runtime.model import Model

SUFFIXES = {".onnx": "onnxruntime", ".engine": "tensorrt"}


def load(
    path: str | Path,
    backend: str = "auto",
    *,
    threads: int | None = None,
    provider: str = "cpu",
    host_code: bool = False,
) -> Model:
    """Load a file that gtp-export wrote.

    Args:
        path: the file (.onnx, .engine), or its directory, which means ``model.onnx``.
        backend: "auto" (by the file's ending), "onnxruntime" or "tensorrt".
        threads: threads to run with; the backend's own choice without.
        provider: ONNX Runtime's: "cpu", "cuda" or "tensorrt".
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
    return Model(file, manifest, _backend(file, manifest.entry(file.name), backend, threads, provider, host_code))


def _backend(
    file: Path, entry: FileEntry, backend: str, threads: int | None, provider: str, host_code: bool
) -> Backend:
    wanted = SUFFIXES.get(file.suffix) if backend == "auto" else backend
    if wanted is None or wanted not in SUFFIXES.values():
        known = ", ".join(f"{name} ({suffix})" for suffix, name in SUFFIXES.items())
        raise BackendMissingError(f"nothing here runs {file.name} with backend {backend!r}: there are {known}")
    if SUFFIXES.get(file.suffix) != wanted:
        raise BackendMissingError(f"{wanted} does not run {file.name}: leave out the backend to choose by the file")
    if wanted == "tensorrt":
        from gtp_runtime.backends.tensorrt import TensorRTBackend

        return TensorRTBackend(file, entry, host_code)
    from gtp_runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(file, threads, provider)
