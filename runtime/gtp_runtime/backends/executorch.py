"""ExecuTorch with XNNPACK on CPUs. Its Python package is an extension of PyTorch; phones have it in C++ without."""

import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np

from gtp_runtime.backends.spec import BACKENDS, THREADS, BackendSpec, Tensor, check_tensors, check_threads
from gtp_runtime.cpus import usable_cpus
from gtp_runtime.errors import BackendMissingError, DeviceError, GTPRuntimeError, InputError, ManifestError
from gtp_runtime.extras import Extra
from gtp_runtime.manifest import FileEntry, TensorSpec
from gtp_runtime.messages import one_line
from gtp_runtime.native import printing_to
from gtp_runtime.opening import named_in_utf8

EXTRA = Extra("executorch", {"executorch": "executorch", "torch": "torch"})
METHOD = "forward"
TYPES = {0: "uint8", 3: "int32", 6: "float32"}  # PyTorch's numbers (ScalarType)


@dataclass(frozen=True)
class ExecuTorchOptions:
    """How ExecuTorch runs a file.

    Attributes:
        threads: threads per run; 0 for all that this process may use. ExecuTorch has one number for a process, so open
            models share it.
    """

    threads: int = field(default=0, metadata=THREADS)

    def __post_init__(self) -> None:
        check_threads(self.threads)


class ExecuTorchBackend:
    """A .pte file in ExecuTorch; runs from several threads take turns.

    Args:
        path: the .pte file.
        entry: what the manifest says of it. A .pte file has no names: inputs and outputs are in the entry's order.
        options: how to run it.

    Raises:
        BackendMissingError: executorch is not installed.
        InputError: a model with another number of threads is open in this process.
        ManifestError: ExecuTorch cannot load the file, or its tensors are not those that the manifest says.
    """

    name = "executorch"

    def __init__(self, path: Path, entry: FileEntry, options: ExecuTorchOptions) -> None:
        self._torch, runtime = _import()
        _share_threads(self, options.threads or usable_cpus())
        try:
            with named_in_utf8(path) as place:
                self._program: Any = runtime.Runtime.get().load_program(place)  # a method does not keep it
                self._method: Any = self._program.load_method(METHOD)
        except (RuntimeError, ValueError, KeyError) as error:
            _OPEN.discard(self)
            raise ManifestError(f"ExecuTorch cannot load {path}: {one_line(error)}") from error
        self._inputs, self._outputs = ([spec.name for spec in specs] for specs in (entry.inputs, entry.outputs))
        self._turn, self._name = threading.Lock(), path.name
        about = self._method.metadata
        inputs = [about.input_tensor_meta(index) for index in range(about.num_inputs())]
        outputs = [about.output_tensor_meta(index) for index in range(about.num_outputs())]
        check_tensors(path, _named(inputs, entry.inputs), _named(outputs, entry.outputs), entry)
        self.info: dict[str, Any] = {"version": version("executorch"), "threads": int(options.threads)}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; thread-safe."""
        with self._turn:
            if self._method is None:
                raise GTPRuntimeError("this model was closed: load it again")
            arrays = [np.require(inputs[name], requirements=("C", "W")) for name in self._inputs]
            try:
                results = self._method.execute([self._torch.from_numpy(values) for values in arrays])
            except RuntimeError as error:
                raise DeviceError(f"ExecuTorch cannot run {self._name}: {one_line(error)}") from error
            return {name: values.numpy() for name, values in zip(self._outputs, results, strict=True)}

    def close(self) -> None:
        """Free the model."""
        with self._turn:
            self._method = self._program = None
            _OPEN.discard(self)


_OPEN: "WeakSet[ExecuTorchBackend]" = WeakSet()
_OPENING = threading.Lock()


def _share_threads(model: ExecuTorchBackend, threads: int) -> None:
    """Set the threads of the process; a loaded model holds the pool, so it cannot change under one.

    Raises:
        InputError: another number, while a model is open.
    """
    from executorch.extension.pybindings import portable_lib

    with _OPENING, _quiet():
        there = portable_lib._threadpool_get_thread_count()
        if there != threads and _OPEN:
            raise InputError(
                f"threads={threads}: ExecuTorch has one number of threads for a process, and a model with {there} is "
                "open: close it, or load both with the same number"
            )
        if there != threads:
            portable_lib._unsafe_reset_threadpool(threads)
        _OPEN.add(model)


def _import() -> tuple[Any, Any]:
    try:
        with _quiet():
            import torch
            from executorch import runtime
    except ImportError as error:
        raise BackendMissingError(f"executorch is not installed: {EXTRA.command}") from error
    return torch, runtime


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, stderr goes nowhere: on first use, ExecuTorch tells of kernels for GPUs and looks for an Arm board."""
    with warnings.catch_warnings(), open(os.devnull, "wb") as nowhere, printing_to(2, nowhere.fileno()):
        warnings.simplefilter("ignore")
        yield


def _named(tensors: list[Any], specs: list[TensorSpec]) -> Iterator[Tensor]:
    names = [spec.name for spec in specs] + [f"{index}" for index in range(len(specs), len(tensors))]
    for name, tensor in zip(names, tensors, strict=False):
        yield name, list(tensor.sizes()), TYPES.get(tensor.dtype(), f"type {tensor.dtype()}")


BACKENDS.add(
    BackendSpec(
        name="executorch",
        runs="ExecuTorch files (gtp-export convert --to executorch)",
        suffixes=(".pte",),
        default_for=(".pte",),
        extras=(EXTRA,),
        options=ExecuTorchOptions,
        open=ExecuTorchBackend,
    )
)
