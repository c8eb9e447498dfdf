"""TensorRT and TensorRT-RTX: runs an engine that ``gtp-export build-engine`` wrote."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from gtp_runtime.cuda import Cuda, find_cuda
from gtp_runtime.engine_info import check_device, check_version
from gtp_runtime.errors import DeviceError, GTPRuntimeError, ManifestError
from gtp_runtime.manifest import FileEntry
from gtp_runtime.tensorrt_flavor import Flavor, find_flavor
from gtp_runtime.tensorrt_log import make_logger

STAGES = ("h2d", "compute", "d2h")


class TensorRTBackend:
    """An engine, its buffers and one stream. One run at a time: threads wait for each other.

    Args:
        path: the .engine file, its sha256 checked already.
        entry: what the manifest says of it.
        host_code: allow code for the CPU inside the engine (``engine_host_code_allowed``); only for engines of yours.

    Raises:
        BackendMissingError: TensorRT or CUDA's Python library is not installed.
        EngineMismatchError: built for another TensorRT or GPU.
        DeviceError: CUDA or TensorRT refuses.
    """

    name = "tensorrt"

    def __init__(self, path: Path, entry: FileEntry, host_code: bool = False) -> None:
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
        self._device: dict[str, Any] = {}
        self._execution: Any = None
        with self._context():
            try:
                self._open(path, flavor, host_code)
                self._allocate(entry)
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

    def _open(self, path: Path, flavor: Flavor, host_code: bool) -> None:
        runtime = flavor.trt.Runtime(self._logger)
        runtime.engine_host_code_allowed = host_code
        self._engine = self._made(runtime.deserialize_cuda_engine(path.read_bytes()), f"read {path}")
        if flavor.is_rtx:
            self._execution = self._made(self._rtx_context(path), "start the engine")
        else:
            self._execution = self._made(self._engine.create_execution_context(), "start the engine")
        self._runtime = runtime  # the engine uses it as long as it lives

    def _rtx_context(self, path: Path) -> Any:
        """RTX compiles kernels on first use; kept in a file beside the engine, they make the second start fast."""
        config = self._engine.create_runtime_config()
        self._cache, self._cache_file = config.create_runtime_cache(), path.with_suffix(".rtx-cache")
        if self._cache_file.exists():
            self._cache.deserialize(self._cache_file.read_bytes())  # False for a stale one, which is written anew
        if not config.set_runtime_cache(self._cache):
            raise DeviceError(self._refusal("use the runtime cache"))
        return self._engine.create_execution_context(config)

    def _allocate(self, entry: FileEntry) -> None:
        names = {self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)}
        specs = [*entry.inputs, *entry.outputs]
        if names != {spec.name for spec in specs}:
            raise ManifestError(f"the engine has {sorted(names)}, its manifest says {[spec.name for spec in specs]}")
        cuda = self._cuda
        self._stream = cuda.stream()
        self._inputs = [spec.name for spec in entry.inputs]
        self._outputs = [spec.name for spec in entry.outputs]
        self._host = {spec.name: cuda.pinned(tuple(spec.shape), np.dtype(spec.dtype)) for spec in specs}
        for name, array in self._host.items():
            memory = self._device[name] = cuda.allocate(array.nbytes)
            if not self._execution.set_tensor_address(name, cuda.address(memory)):
                raise DeviceError(self._refusal(f"bind {name}"))
        self._marks = [cuda.event() for _ in range(len(STAGES) + 1)]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once; thread-safe, one run at a time."""
        with self._lock, self._context():
            self._enqueue(inputs)
            return {name: self._host[name].copy() for name in self._outputs}

    def stages(self, inputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Run once and return milliseconds by trtexec's definitions: ``h2d``, ``compute`` (between events), ``d2h`` on
        the GPU, and ``enqueue``, the host's time to ask for the work.
        """
        with self._lock, self._context():
            enqueue = self._enqueue(inputs)
            between = zip(self._marks, self._marks[1:], strict=False)
            times = [self._cuda.milliseconds(start, end) for start, end in between]
        return {**dict(zip(STAGES, times, strict=True)), "enqueue": enqueue}

    def _enqueue(self, inputs: Mapping[str, np.ndarray]) -> float:
        cuda, marks = self._cuda, self._marks
        if not self._device:
            raise GTPRuntimeError("this model was closed: load it again")
        for name in self._inputs:
            np.copyto(self._host[name], inputs[name])
        cuda.record(marks[0], self._stream)
        for name in self._inputs:
            cuda.upload(self._device[name], self._host[name], self._stream)
        cuda.record(marks[1], self._stream)
        start = time.perf_counter()
        if not self._execution.execute_async_v3(cuda.handle(self._stream)):
            raise DeviceError(self._refusal("run the engine"))
        enqueue = (time.perf_counter() - start) * 1e3
        cuda.record(marks[2], self._stream)
        for name in self._outputs:
            cuda.download(self._host[name], self._device[name], self._stream)
        cuda.record(marks[3], self._stream)
        cuda.wait(self._stream)
        return enqueue

    def close(self) -> None:
        """Free the engine and its buffers; RTX's compiled kernels are kept beside the engine."""
        with self._lock, self._context():
            if self._device:
                self._keep_cache()
            self._free()

    def _free(self) -> None:
        for memory in self._device.values():
            self._cuda.free(memory)
        self._device.clear()
        self._execution = self._engine = self._runtime = None

    def _keep_cache(self) -> None:
        if not hasattr(self, "_cache"):
            return
        with suppress(OSError):  # a directory that cannot be written costs only the next start's time
            self._cache_file.write_bytes(memoryview(self._cache.serialize()))

    def _made(self, thing: Any, task: str) -> Any:
        if thing is None:
            raise DeviceError(self._refusal(task))
        return thing

    def _refusal(self, task: str) -> str:
        said = "; ".join(self._logger.errors[-3:]) or "it gives no reason"
        return f"TensorRT refuses to {task}: {said}"
