"""CUDA through NVIDIA's cuda-python (``cuda.bindings``): every call returns an error code, and every one is checked."""

import ctypes
import weakref
from typing import Any

import numpy as np
from cuda.bindings import runtime

from gtp_runtime.errors import DeviceError


def check(result: tuple[Any, ...]) -> Any:
    """Return the result of a call, or raise ``DeviceError`` with CUDA's message."""
    error, *values = result
    if int(error) != 0:
        _, text = runtime.cudaGetErrorString(error)
        words = text.decode() if isinstance(text, bytes) else str(text)
        raise DeviceError(f"CUDA: {words} ({error.name}); nvidia-smi shows whether the GPU and its driver work")
    return values[0] if len(values) == 1 else tuple(values)


class CudaPython:
    """Modifications: the runtime API, whose calls use the primary context of the current device by themselves."""

    name = "cuda-python"

    def __init__(self) -> None:
        try:
            count = check(runtime.cudaGetDeviceCount())
        except RuntimeError as error:  # without a driver the first call cannot even load libcuda
            raise DeviceError(f"CUDA: {error}: no NVIDIA driver here; nvidia-smi shows whether there is") from error
        if not count:
            raise DeviceError("CUDA finds no GPU here: nvidia-smi shows what the driver sees")
        check(runtime.cudaSetDevice(0))

    def describe(self) -> dict[str, Any]:
        properties = check(runtime.cudaGetDeviceProperties(0))
        return {
            "gpu": properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "driver": _version(check(runtime.cudaDriverGetVersion())),
            "runtime": _version(check(runtime.cudaRuntimeGetVersion())),
        }

    def enter(self) -> None:
        check(runtime.cudaSetDevice(0))

    def leave(self) -> None:
        """Nothing: the current device is a setting of the thread."""

    def stream(self) -> Any:
        return check(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))

    def destroy_stream(self, stream: Any) -> None:
        check(runtime.cudaStreamDestroy(stream))

    def handle(self, stream: Any) -> int:
        return int(stream)

    def event(self) -> Any:
        return check(runtime.cudaEventCreate())

    def destroy_event(self, event: Any) -> None:
        check(runtime.cudaEventDestroy(event))

    def record(self, event: Any, stream: Any) -> None:
        check(runtime.cudaEventRecord(event, stream))

    def milliseconds(self, start: Any, end: Any) -> float:
        return float(check(runtime.cudaEventElapsedTime(start, end)))

    def allocate(self, size: int) -> Any:
        return check(runtime.cudaMalloc(size))

    def address(self, memory: Any) -> int:
        return int(memory)

    def free(self, memory: Any) -> None:
        check(runtime.cudaFree(memory))

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        size = int(np.prod(shape)) * dtype.itemsize
        pointer = check(runtime.cudaMallocHost(size))
        memory = (ctypes.c_byte * size).from_address(int(pointer))
        weakref.finalize(memory, runtime.cudaFreeHost, pointer)
        return np.frombuffer(memory, dtype).reshape(shape)  # type: ignore[call-overload, no-any-return, unused-ignore]

    def upload(self, memory: Any, array: np.ndarray, stream: Any) -> None:
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        check(runtime.cudaMemcpyAsync(memory, array.ctypes.data, array.nbytes, kind, stream))

    def download(self, array: np.ndarray, memory: Any, stream: Any) -> None:
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        check(runtime.cudaMemcpyAsync(array.ctypes.data, memory, array.nbytes, kind, stream))

    def wait(self, stream: Any) -> None:
        check(runtime.cudaStreamSynchronize(stream))


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
