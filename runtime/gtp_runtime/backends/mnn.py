"""MNN on CPUs: phones, Arm boards, and x86 as well."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gtp_runtime.backends.spec import BACKENDS, THREADS, BackendSpec, Tensor, check_tensors, check_threads
from gtp_runtime.cpus import usable_cpus
from gtp_runtime.errors import BackendMissingError, DeviceError, GTPRuntimeError, ManifestError
from gtp_runtime.extras import Extra
from gtp_runtime.manifest import FileEntry, TensorSpec
from gtp_runtime.messages import one_line
from gtp_runtime.native import printing_to
from gtp_runtime.opening import named_in_utf8

EXTRA = Extra("mnn", {"MNN": "MNN"})
CPU, HIGH = 0, 1  # MNN's numbers of a device, and of a precision: float32


@dataclass(frozen=True)
class MNNOptions:
    """How MNN runs a file.

    Attributes:
        threads: threads per run; 0 for all that this process may use.
    """

    threads: int = field(default=0, metadata=THREADS)

    def __post_init__(self) -> None:
        check_threads(self.threads)


class MNNBackend:
    """An .mnn file in MNN; runs from several threads take turns.

    MNN says shapes only of what it has computed, so the file runs once when it is loaded.

    Args:
        path: the .mnn file.
        entry: what the manifest says of it.
        options: how to run it.

    Raises:
        BackendMissingError: MNN is not installed.
        ManifestError: MNN cannot load the file, or its tensors are not those that the manifest says.
    """

    name = "mnn"

    def __init__(self, path: Path, entry: FileEntry, options: MNNOptions) -> None:
        mnn = _import()
        self._mnn, self._name = mnn, path.name
        self._inputs = [spec.name for spec in entry.inputs]
        self._outputs = [spec.name for spec in entry.outputs]
        settings = {"backend": CPU, "numThread": int(options.threads) or usable_cpus(), "precision": HIGH}
        try:
            manager = mnn.nn.create_runtime_manager((settings,))
            with named_in_utf8(path) as place:
                names = (self._inputs, self._outputs)
                self._module: Any = mnn.nn.load_module_from_file(str(place), *names, runtime_manager=manager)
        except Exception as error:  # MNN raises classes of its own C++ module
            raise ManifestError(f"MNN cannot load {path}: {one_line(error)}") from error
        self._turn = threading.Lock()
        self._check(path, entry)
        self.info: dict[str, Any] = {"version": mnn.version(), "threads": int(options.threads)}

    def _check(self, path: Path, entry: FileEntry) -> None:
        try:
            outputs = self.run({spec.name: np.zeros(spec.shape, spec.dtype) for spec in entry.inputs})
        except DeviceError as error:
            raise ManifestError(f"{error}: export and convert again") from error
        check_tensors(path, map(_listed, entry.inputs), map(_tensor, outputs.items()), entry)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; thread-safe."""
        with self._turn:
            if self._module is None:
                raise GTPRuntimeError("this model was closed: load it again")
            try:
                values = [self._variable(np.ascontiguousarray(inputs[name])) for name in self._inputs]
                results = self._module.onForward(values)
                return {name: self._array(value) for name, value in zip(self._outputs, results, strict=True)}
            except Exception as error:  # MNN raises classes of its own C++ module
                raise DeviceError(f"MNN cannot run {self._name}: {one_line(error)}") from error

    def _variable(self, values: np.ndarray) -> Any:
        expr = self._mnn.expr
        kind = expr.uint8 if values.dtype == np.uint8 else expr.float
        return expr.const(values, list(values.shape), expr.NCHW, kind)

    def _array(self, value: Any) -> np.ndarray:
        expr = self._mnn.expr
        plain = expr.convert(value, expr.NCHW) if value.data_format == expr.NC4HW4 else value
        return np.array(plain.read())

    def close(self) -> None:
        """Free the model."""
        with self._turn:
            self._module = None


def _import() -> Any:
    try:
        with printing_to(1, 2):  # MNN says there what the CPU has when it is imported
            import MNN
            import MNN.expr
            import MNN.nn
    except ImportError as error:
        raise BackendMissingError(f"MNN is not installed: {EXTRA.command}") from error
    return MNN


def _listed(spec: TensorSpec) -> Tensor:
    return spec.name, spec.shape, spec.dtype


def _tensor(output: tuple[str, np.ndarray]) -> Tensor:
    name, values = output
    return name, list(values.shape), values.dtype.name


BACKENDS.add(
    BackendSpec(
        name="mnn",
        runs="MNN files (gtp-export convert --to mnn)",
        suffixes=(".mnn",),
        default_for=(".mnn",),
        extras=(EXTRA,),
        options=MNNOptions,
        open=MNNBackend,
    )
)
