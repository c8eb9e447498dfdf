"""Opens a file of an artifact directory, once it is what its manifest says."""

import warnings
from pathlib import Path

from gtp_runtime.backends import Backend
from gtp_runtime.errors import BackendMissingError, ManifestError, RandomWeightsWarning
from gtp_runtime.manifest import check_file, read_manifest
from gtp_runtime.model import Model


def load(path: str | Path, backend: str = "auto", *, threads: int | None = None, provider: str = "cpu") -> Model:
    """Load a file that gtp-export wrote.

    Args:
        path: the file (.onnx), or its directory, which means ``model.onnx``.
        backend: "auto" (by the file's ending) or "onnxruntime".
        threads: threads to run with; the backend's own choice without.
        provider: ONNX Runtime's: "cpu", "cuda" or "tensorrt".

    Raises:
        ManifestError: no such file, no manifest, or the file is not what its manifest says (sha256).
        BackendMissingError: what would run it is not installed.
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
    return Model(file, manifest, _backend(file, backend, threads, provider))


def _backend(file: Path, backend: str, threads: int | None, provider: str) -> Backend:
    if backend not in ("auto", "onnxruntime"):
        raise BackendMissingError(f"no backend is called {backend!r}: choose auto or onnxruntime")
    if file.suffix != ".onnx":
        raise BackendMissingError(f"nothing here runs {file.name}: give a .onnx file")
    from gtp_runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(file, threads, provider)
