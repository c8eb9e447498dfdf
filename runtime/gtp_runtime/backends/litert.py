"""LiteRT (TensorFlow Lite) with XNNPACK on CPUs: phones, Raspberry Pi, and x86 as well."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gtp_runtime.backends.spec import BACKENDS, THREADS, BackendSpec, Tensor, check_tensors, check_threads
from gtp_runtime.cpus import threads_of, usable_cpus
from gtp_runtime.errors import BackendMissingError, DeviceError, GTPRuntimeError, ManifestError
from gtp_runtime.extras import Extra
from gtp_runtime.manifest import FileEntry
from gtp_runtime.messages import one_line
from gtp_runtime.opening import named_in_utf8

EXTRA = Extra("litert", {"ai_edge_litert": "ai-edge-litert"})


@dataclass(frozen=True)
class LiteRTOptions:
    """How LiteRT runs a file.

    Attributes:
        threads: threads per run; 0 for all that this process may use.
    """

    threads: int = field(default=0, metadata=THREADS)

    def __post_init__(self) -> None:
        check_threads(self.threads)


class LiteRTBackend:
    """A .tflite file in a LiteRT interpreter; runs from several threads take turns.

    Args:
        path: the .tflite file.
        entry: what the manifest says of it.
        options: how to run it.

    Raises:
        BackendMissingError: ai-edge-litert is not installed.
        ManifestError: LiteRT cannot load the file, or its tensors are not those that the manifest says.
    """

    name = "litert"

    def __init__(self, path: Path, entry: FileEntry, options: LiteRTOptions) -> None:
        litert, version = _import()
        try:
            with named_in_utf8(path) as place:
                interpreter = litert.Interpreter(str(place), num_threads=threads_of(options.threads) or usable_cpus())
                interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ManifestError(f"LiteRT cannot load {path}: {one_line(error)}") from error
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        check_tensors(path, map(_tensor, inputs), map(_tensor, outputs), entry)
        self._places = {details["name"]: details["index"] for details in (*inputs, *outputs)}
        self._outputs = [details["name"] for details in outputs]
        self._interpreter: Any = interpreter
        self._turn, self._name = threading.Lock(), path.name
        self.info: dict[str, Any] = {"version": version, "threads": int(options.threads)}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; thread-safe."""
        with self._turn:
            interpreter = self._interpreter
            if interpreter is None:
                raise GTPRuntimeError("this model was closed: load it again")
            try:
                for name, values in inputs.items():
                    interpreter.set_tensor(self._places[name], values)
                interpreter.invoke()
                return {name: interpreter.get_tensor(self._places[name]) for name in self._outputs}
            except (RuntimeError, ValueError) as error:
                raise DeviceError(f"LiteRT cannot run {self._name}: {one_line(error)}") from error

    def close(self) -> None:
        """Free the model."""
        with self._turn:
            self._interpreter = None


def _import() -> tuple[Any, str]:
    try:
        import ai_edge_litert
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise BackendMissingError(f"ai-edge-litert is not installed: {EXTRA.command}") from error
    return interpreter, ai_edge_litert.__version__


def _tensor(details: Mapping[str, Any]) -> Tensor:
    return details["name"], [int(size) for size in details["shape"]], np.dtype(details["dtype"]).name


BACKENDS.add(
    BackendSpec(
        name="litert",
        runs="LiteRT files (gtp-export convert --to litert)",
        suffixes=(".tflite",),
        default_for=(".tflite",),
        extras=(EXTRA,),
        options=LiteRTOptions,
        open=LiteRTBackend,
    )
)
