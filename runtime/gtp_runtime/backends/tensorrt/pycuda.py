"""CUDA through pycuda, in the primary context: ``pycuda.autoinit`` would make one of its own and clash with torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from pycuda import driver

from gtp_runtime.errors import DeviceError


@contextmanager
def checked() -> Iterator[None]:
    """Turn pycuda's own errors into ``DeviceError``."""
    try:
        yield
    except driver.Error as error:
        raise DeviceError(f"CUDA: {error}; nvidia-smi (tegrastats on a Jetson) shows whether the GPU works") from error


class PyCuda:
    """Modifications: the context is pushed and popped in each thread."""

    name = "pycuda"

    @checked()
    def __init__(self) -> None:
        driver.init()
        self._device = driver.Device(0)
        self._context = self._device.retain_primary_context()

    @checked()
    def describe(self) -> dict[str, Any]:
        major, minor = self._device.compute_capability()
        number = driver.get_driver_version()
        return {
            "gpu": self._device.name(),
            "compute_capability": f"{major}.{minor}",
            "driver": f"{number // 1000}.{number % 1000 // 10}",
            "runtime": ".".join(str(part) for part in driver.get_version()[:2]),
        }

    @checked()
    def enter(self) -> None:
        self._context.push()

    @checked()
    def leave(self) -> None:
        driver.Context.pop()

    @checked()
    def stream(self) -> Any:
        return driver.Stream()

    def destroy_stream(self, stream: Any) -> None:
        """Nothing: a stream destroys itself with its last reference."""

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    @checked()
    def event(self) -> Any:
        return driver.Event()

    def destroy_event(self, event: Any) -> None:
        """Nothing: an event destroys itself with its last reference."""

    @checked()
    def record(self, event: Any, stream: Any) -> None:
        event.record(stream)

    @checked()
    def milliseconds(self, start: Any, end: Any) -> float:
        return float(start.time_till(end))

    @checked()
    def allocate(self, size: int) -> Any:
        return driver.mem_alloc(size)

    def address(self, memory: Any) -> int:
        return int(memory)

    @checked()
    def free(self, memory: Any) -> None:
        memory.free()

    @checked()
    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        return np.asarray(driver.pagelocked_empty(shape, dtype))

    @checked()
    def upload(self, memory: Any, array: np.ndarray, stream: Any) -> None:
        driver.memcpy_htod_async(memory, array, stream)

    @checked()
    def download(self, array: np.ndarray, memory: Any, stream: Any) -> None:
        driver.memcpy_dtoh_async(array, memory, stream)

    @checked()
    def wait(self, stream: Any) -> None:
        stream.synchronize()
