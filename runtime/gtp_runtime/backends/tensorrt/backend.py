"""TensorRT and TensorRT-RTX: runs an engine that ``gtp-export build-engine`` wrote."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gtp_runtime import atomic
from gtp_runtime.backends.spec import BACKENDS, BATCH, Attempt, BackendSpec, Tensor, check_tensors
from gtp_runtime.backends.tensorrt.cuda import Buffers, Cuda, find_cuda
from gtp_runtime.backends.tensorrt.flavor import Flavor, check_device, check_version, find_flavor, make_logger
from gtp_runtime.errors import DeviceError, GTPRuntimeError, ManifestError
from gtp_runtime.extras import Extra
from gtp_runtime.manifest import CACHE_SUFFIX, FileEntry, read_checked
from gtp_runtime.messages import one_line
from gtp_runtime.opening import read_regular

log = logging.getLogger(__name__)
LARGEST_CACHE = 1 << 28  # bytes
STAGES = ("h2d", "compute", "d2h")
DTYPES = {  # TensorRT's names of what numpy has
    "FLOAT": "float32",
    "HALF": "float16",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
CUDA = {"cuda.bindings": "cuda-python"}
EXTRAS = (
    Extra("tensorrt", {"tensorrt": "tensorrt", **CUDA}),
    Extra("tensorrt-rtx", {"tensorrt_rtx": "tensorrt_rtx", **CUDA}),
    Extra("jetson", {"pycuda": "pycuda"}, system=("tensorrt",)),
)


@dataclass(frozen=True)
class TensorRTOptions:
    """How TensorRT runs an engine.

    Attributes:
        host_code: allow code for the CPU inside the engine (``engine_host_code_allowed``).
        keep_kernels: TensorRT-RTX keeps the kernels that it compiled in a file beside the engine, and reads them there.
            Like engines they are code. No key signs them, so a load that demands a signature leaves them out.
    """

    host_code: bool = field(
        default=False, metadata={"help": "let an engine run its own code on the CPU; only for engines that you built"}
    )
    keep_kernels: bool = field(
        default=True,
        metadata={"help": "keep TensorRT-RTX's kernels beside the engine; not with --trusted-key"},
    )


class TensorRTBackend:
    """An engine, its buffers and one stream. One run at a time: threads wait for each other.

    Args:
        path: the .engine file, its sha256 checked already.
        entry: what the manifest says of it.
        options: how to run it.

    Raises:
        BackendMissingError: TensorRT or CUDA's Python library is not installed.
        EngineMismatchError: built for another TensorRT or GPU.
        DeviceError: CUDA or TensorRT refuses.
    """

    name = "tensorrt"

    def __init__(self, path: Path, entry: FileEntry, options: TensorRTOptions) -> None:
        if entry.engine is None:
            raise ManifestError(f"the manifest does not say how {path} was built: use gtp-export build-engine")
        rebuild = f"gtp-export build-engine {path.parent / entry.engine.onnx} -o {path}"
        flavor = find_flavor(entry.engine.flavor)
        check_version(entry.engine, flavor, rebuild)
        self._cuda: Cuda = find_cuda()
        device = self._cuda.describe()
        check_device(entry.engine, device, rebuild)
        self._lock = threading.Lock()
        self._logger = make_logger(flavor.trt)
        self._buffers: Buffers | None = None
        self._execution: Any = None
        with self._context():
            try:
                self._open(path, read_checked(path, entry), flavor, options)
                self._allocate(path, entry)
            except BaseException:
                self._free()
                raise
        self.info: dict[str, Any] = {
            "version": flavor.version,
            "flavor": flavor.name,
            "cuda_library": self._cuda.name,
            **device,
            "settings": {"cuda_graph": False, "spin_wait": False, "transfers": True, "streams": 1},
        }

    @contextmanager
    def _context(self) -> Iterator[None]:
        self._cuda.enter()
        try:
            yield
        finally:
            self._cuda.leave()

    def _open(self, path: Path, plan: bytes, flavor: Flavor, options: TensorRTOptions) -> None:
        runtime = flavor.trt.Runtime(self._logger)
        runtime.engine_host_code_allowed = options.host_code
        self._engine = self._made(runtime.deserialize_cuda_engine(plan), f"read {path}")
        if flavor.is_rtx and options.keep_kernels:
            self._execution = self._made(self._rtx_context(path), "start the engine")
        else:
            self._execution = self._made(self._engine.create_execution_context(), "start the engine")
        self._runtime = runtime  # the engine uses it as long as it lives

    def _rtx_context(self, path: Path) -> Any:
        """RTX compiles kernels on first use; kept in a file beside the engine, they make the second start fast."""
        config = self._engine.create_runtime_config()
        self._cache, self._cache_file = config.create_runtime_cache(), path.with_suffix(CACHE_SUFFIX)
        try:
            fits = self._cache.deserialize(read_regular(self._cache_file, LARGEST_CACHE))
            log.info("compiled kernels in %s %s", self._cache_file, "are used" if fits else "do not fit: made anew")
        except OSError as error:  # there are none yet
            log.info("no compiled kernels in %s (%s): made anew", self._cache_file, error.strerror)
        if not config.set_runtime_cache(self._cache):
            raise DeviceError(self._refusal("use the runtime cache"))
        return self._engine.create_execution_context(config)

    def _tensors(self) -> Iterator[Tensor]:
        """Yield what the engine says of its tensors: buffers that are smaller would be overrun."""
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            kind = self._engine.get_tensor_dtype(name).name
            first, *rest = self._engine.get_tensor_shape(name)
            yield name, [BATCH if first == -1 else first, *rest], DTYPES.get(kind, kind)

    def _allocate(self, path: Path, entry: FileEntry) -> None:
        check_tensors(path, self._tensors(), (), entry)
        self._shapes = None if entry.batch is None else {spec.name: spec.shape[1:] for spec in entry.inputs}
        specs = [*entry.inputs, *entry.outputs]
        self._inputs = [spec.name for spec in entry.inputs]
        self._outputs = [spec.name for spec in entry.outputs]
        self._buffers = Buffers(self._cuda, specs, len(STAGES) + 1)
        for spec in specs:
            if not self._execution.set_tensor_address(spec.name, self._buffers.address(spec.name)):
                raise DeviceError(self._refusal(f"bind {spec.name}"))

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; thread-safe, one run at a time."""
        with self._lock, self._context():
            buffers = self._open_buffers()
            self._enqueue(buffers, inputs)
            images = len(inputs[self._inputs[0]])
            return {name: buffers.host[name][:images].copy() for name in self._outputs}

    def stages(self, inputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Run once and return milliseconds by trtexec's definitions: ``h2d``, ``compute`` (between events), ``d2h`` on
        the GPU, and ``enqueue``, the host's time to ask for the work.
        """
        with self._lock, self._context():
            buffers = self._open_buffers()
            enqueue = self._enqueue(buffers, inputs)
            times = buffers.between()
        return {**dict(zip(STAGES, times, strict=True)), "enqueue": enqueue}

    def _open_buffers(self) -> Buffers:
        if self._buffers is None:
            raise GTPRuntimeError("this model was closed: load it again")
        return self._buffers

    def _enqueue(self, buffers: Buffers, inputs: Mapping[str, np.ndarray]) -> float:
        """Ask for one run and wait for it; milliseconds that asking for the computation took."""
        images = len(inputs[self._inputs[0]])
        for name in self._inputs:
            np.copyto(buffers.host[name][:images], inputs[name])
        for name, rest in (self._shapes or {}).items():
            if not self._execution.set_input_shape(name, (images, *rest)):
                raise DeviceError(self._refusal(f"take {images} images"))
        buffers.mark(0)
        buffers.upload(self._inputs, images)
        buffers.mark(1)
        start = time.perf_counter()
        if not self._execution.execute_async_v3(self._cuda.handle(buffers.stream)):
            raise DeviceError(self._refusal("run the engine"))
        enqueue = (time.perf_counter() - start) * 1e3
        buffers.mark(2)
        buffers.download(self._outputs, images)
        buffers.mark(3)
        self._cuda.wait(buffers.stream)
        return enqueue

    def close(self) -> None:
        """Free the engine and its buffers; RTX's compiled kernels are kept beside the engine. Again is no error."""
        with self._lock, self._context():
            if self._buffers is not None:
                self._keep_cache()
            self._free()

    def _free(self) -> None:
        self._execution = self._engine = self._runtime = None
        if self._buffers is not None:
            self._buffers.free()
        self._buffers = None

    def _keep_cache(self) -> None:
        if not hasattr(self, "_cache"):
            return
        try:
            atomic.write_bytes(self._cache_file, bytes(memoryview(self._cache.serialize())))
        except OSError as error:  # costs only the next start's time
            log.info("compiled kernels are not kept in %s: %s", self._cache_file, error)

    def _made(self, thing: Any, task: str) -> Any:
        if thing is None:
            raise DeviceError(self._refusal(task))
        return thing

    def _refusal(self, task: str) -> str:
        said = one_line("; ".join(self._logger.errors[-3:])) or "it gives no reason"
        return f"TensorRT refuses to {task}: {said}"


BACKENDS.add(
    BackendSpec(
        name="tensorrt",
        runs="TensorRT engines",
        suffixes=(".engine",),
        default_for=(".engine",),
        extras=EXTRAS,
        options=TensorRTOptions,
        open=TensorRTBackend,
        attempts=(Attempt(0),),
        trusting=lambda options: replace(options, keep_kernels=False),
        find_device=find_cuda,
    )
)
