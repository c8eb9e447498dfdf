"""Loads files of an artifact directory, after checking them against the manifest."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

from gtp_runtime.backends import find_backend
from gtp_runtime.backends.options import make_options
from gtp_runtime.errors import InputError, ManifestError, RandomWeightsWarning
from gtp_runtime.manifest import check_file, find_graph, read_manifest, twin
from gtp_runtime.model import Model

log = logging.getLogger(__name__)


def load(
    path: "str | os.PathLike[str]", backend: str = "auto", *, precision: str | None = None, **options: Any
) -> Model:
    """Load a file that gtp-export wrote.

    Args:
        path: the file (.onnx, .engine), or its directory, which means ``model.onnx``.
        backend: the name of a backend, or "auto": by the file's extension.
        precision: of a directory's graphs, the one to load ("fp32", "int8", …).
        options: options of the backend; None is the default. onnxruntime: ``threads`` (0 for all), ``provider``
            ("cpu", "cuda", "tensorrt"). openvino: ``threads``, ``compute`` ("fp32", "bf16"). tensorrt: ``host_code``
            (let an engine run code of its own on the CPU; only for engines that you built).

    Raises:
        InputError: no such backend, an option that it does not have, an invalid value, or a precision with a file.
        ManifestError: no such file, no graph in this precision, no manifest, or the file differs from its manifest
            (sha256).
        BackendMissingError: the backend or device is not installed.
        EngineMismatchError: the engine is for another TensorRT or GPU.
        DeviceError: CUDA or TensorRT reports an error.
    """
    file = _file(path, precision)
    spec = find_backend(file, backend)
    chosen = make_options(spec, options)
    manifest = read_manifest(file.parent)
    check_file(file, manifest)
    if manifest.weights.source == "random":
        warnings.warn(
            f"{file} was exported with random weights ({manifest.weights.detail}): its outputs are meaningless",
            RandomWeightsWarning,
            stacklevel=2,
        )
    log.info("loading %s with %s (backend: %s), %s", file, spec.name, backend, chosen)
    return Model(file, manifest, spec.open(file, manifest.entry(file.name), chosen))


def load_twin(
    path: "str | os.PathLike[str]", backend: str = "auto", *, precision: str | None = None, **options: Any
) -> Model | None:
    """Load the dense baseline of a file for comparison; None without one.

    A baseline with the same extension uses the same backend and options. Otherwise it uses the default backend of its
    extension, with those of the options that this backend has.

    Raises:
        BackendMissingError: the backend or device for the baseline is not installed.
        Others: as ``load``.
    """
    file = _file(path, precision)
    dense = twin(file)
    if dense is None:
        return None
    if dense.suffix == file.suffix:
        return load(dense, backend, **options)
    names = find_backend(dense).option_names
    return load(dense, **{name: value for name, value in options.items() if name in names})


def _file(path: "str | os.PathLike[str]", precision: str | None) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"give the path of a file or directory, not {type(path).__name__}")
    file = find_graph(Path(path), precision)
    if not file.exists():
        raise ManifestError(f"no file {file}: gtp-export export MODEL writes one")
    return file
