"""ONNX Runtime."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gtp_runtime.backends.spec import (
    BACKENDS,
    THREADS,
    Attempt,
    BackendSpec,
    Deadline,
    Tensor,
    check_tensors,
    check_threads,
)
from gtp_runtime.cpus import threads_of
from gtp_runtime.errors import BackendMissingError, DeviceError, GTPRuntimeError, ManifestError
from gtp_runtime.extras import Extra
from gtp_runtime.manifest import FileEntry
from gtp_runtime.messages import one_line
from gtp_runtime.opening import named_in_utf8

EXTRA = Extra("onnxruntime", {"onnxruntime": "onnxruntime"})
Provider = Literal["cpu", "cuda", "tensorrt"]
PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """How ONNX Runtime runs a file.

    Attributes:
        threads: threads per operator; 0 for all that this process may use.
        provider: the execution provider; operators that it does not support run on the CPU.
    """

    threads: int = field(default=0, metadata=THREADS)
    provider: Provider = field(default="cpu", metadata={"help": "execution provider"})

    def __post_init__(self) -> None:
        check_threads(self.threads)


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
        ort = _import()
        provider = _provider(ort, options.provider)
        self._ort, self._name = ort, path.name
        self._session: Any = _session(ort, path, provider, options.threads)
        if provider not in self._session.get_providers():
            raise BackendMissingError(
                f"{provider} did not start: its CUDA, cuDNN or TensorRT libraries are missing here"
            )
        given, made = self._session.get_inputs(), self._session.get_outputs()
        check_tensors(path, map(_tensor, given), map(_tensor, made), entry)
        self._outputs = [output.name for output in made]
        self.info: dict[str, Any] = {
            "version": ort.__version__,
            "threads": int(options.threads),
            "provider": options.provider,
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

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendMissingError(f"onnxruntime is not installed: {EXTRA.command}") from error
    return onnxruntime


def _provider(ort: Any, provider: Provider) -> str:
    name = PROVIDERS[provider]
    if name not in ort.get_available_providers():
        raise BackendMissingError(
            f"this onnxruntime has no {name}: install onnxruntime-gpu in its place, or use --provider cpu"
        )
    return name


def _session(ort: Any, path: Path, provider: str, threads: int) -> Any:
    options = ort.SessionOptions()
    if wanted := threads_of(threads):
        options.intra_op_num_threads = wanted
        options.inter_op_num_threads = 1
    names = list(dict.fromkeys([provider, PROVIDERS["cpu"]]))
    try:
        with named_in_utf8(path) as place:
            session = ort.InferenceSession(str(place), options, providers=names, enable_fallback=0)
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


def _tensor(value: Any) -> Tensor:
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
