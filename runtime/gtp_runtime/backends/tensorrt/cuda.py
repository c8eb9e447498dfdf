"""The CUDA functions that an engine needs (buffers, streams, events): one interface to two libraries.

pycuda is used if it is installed, else cuda-python. Both work in the primary context, which torch shares.
"""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gtp_runtime.errors import BackendMissingError, DeviceError, GTPRuntimeError, first_line
from gtp_runtime.extras import is_installed
from gtp_runtime.manifest import TensorSpec

log = logging.getLogger(__name__)
TEGRA_RELEASE = Path("/etc/nv_tegra_release")


class Cuda(Protocol):
    """The first GPU in its primary context. Handles are integers or the library's own objects.

    Raises (any method):
        DeviceError: CUDA reports an error.
    """

    name: str

    def describe(self) -> dict[str, Any]:
        """Return ``gpu`` (name), ``compute_capability`` ("8.7"), ``driver`` and ``runtime`` ("12.6")."""
        ...

    def enter(self) -> None:
        """Make the context current in this thread."""
        ...

    def leave(self) -> None:
        """Undo ``enter``."""
        ...

    def stream(self) -> Any:
        """Make a stream."""
        ...

    def destroy_stream(self, stream: Any) -> None:
        """Destroy a stream; the caller drops its reference while the context is current."""
        ...

    def handle(self, stream: Any) -> int:
        """Return the stream's ``cudaStream_t``."""
        ...

    def event(self) -> Any:
        """Make an event that measures time."""
        ...

    def destroy_event(self, event: Any) -> None:
        """Destroy an event; the caller drops its reference while the context is current."""
        ...

    def record(self, event: Any, stream: Any) -> None:
        """Record an event on a stream."""
        ...

    def milliseconds(self, start: Any, end: Any) -> float:
        """Return the time between two events that have passed."""
        ...

    def allocate(self, size: int) -> Any:
        """Allocate bytes on the device."""
        ...

    def address(self, memory: Any) -> int:
        """Return the device address of an allocation."""
        ...

    def free(self, memory: Any) -> None:
        """Free an allocation."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """Return a page-locked array, which keeps its memory while it lives."""
        ...

    def upload(self, memory: Any, array: np.ndarray, stream: Any) -> None:
        """Copy a page-locked array to the device, in the stream's order."""
        ...

    def download(self, array: np.ndarray, memory: Any, stream: Any) -> None:
        """Copy device memory to a page-locked array, in the stream's order."""
        ...

    def wait(self, stream: Any) -> None:
        """Wait until a stream has done all that was asked of it."""
        ...


def find_cuda() -> Cuda:
    """Return CUDA through the library that is installed.

    Raises:
        BackendMissingError: neither pycuda nor cuda-python is installed.
        DeviceError: there is no GPU, or no driver for it.
    """
    try:
        return _find()
    except ImportError as error:  # the library is installed, but a library that it needs is not
        raise DeviceError(f"CUDA cannot be loaded ({first_line(error)}): install the GPU's driver") from error


def _find() -> Cuda:
    if is_installed("pycuda"):
        log.debug("CUDA through pycuda")
        from gtp_runtime.backends.tensorrt.pycuda import PyCuda

        return PyCuda()
    if is_installed("cuda.bindings"):
        log.debug("CUDA through cuda-python: pycuda is not installed")
        from gtp_runtime.backends.tensorrt.cuda_python import CudaPython

        return CudaPython()
    raise BackendMissingError("no CUDA for Python here: pip install cuda-python, or on a Jetson pip install pycuda")


log = logging.getLogger(__name__)


class Buffers:
    """Made, used and freed while CUDA's context is current.

    Args:
        cuda: the GPU.
        specs: the tensors.
        marks: how many events.

    Attributes:
        host: page-locked arrays by tensor name.
        device: allocations by tensor name.
        stream: the stream.
        marks: the events.
    """

    def __init__(self, cuda: Cuda, specs: Sequence[TensorSpec], marks: int) -> None:
        self._cuda = cuda
        self.host: dict[str, np.ndarray] = {}
        self.device: dict[str, Any] = {}
        self.stream: Any = None
        self.marks: list[Any] = []
        try:
            self.stream = cuda.stream()
            for spec in specs:
                array = self.host[spec.name] = cuda.pinned(tuple(spec.shape), np.dtype(spec.dtype))
                self.device[spec.name] = cuda.allocate(array.nbytes)
            for _ in range(marks):
                self.marks.append(cuda.event())
        except BaseException:
            self.free()
            raise

    def address(self, name: str) -> int:
        """Return the device address of a tensor."""
        return self._cuda.address(self.device[name])

    def mark(self, index: int) -> None:
        """Record an event on the stream."""
        self._cuda.record(self.marks[index], self.stream)

    def between(self) -> list[float]:
        """Return the milliseconds from each event to the next, once the stream is done."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        return [self._cuda.milliseconds(start, end) for start, end in pairs]

    def upload(self, names: Sequence[str], images: int) -> None:
        """Copy the first images of tensors to the device, in the stream's order."""
        for name in names:
            self._cuda.upload(self.device[name], self.host[name][:images], self.stream)

    def download(self, names: Sequence[str], images: int) -> None:
        """Copy the first images of tensors from the device, in the stream's order."""
        for name in names:
            self._cuda.download(self.host[name][:images], self.device[name], self.stream)

    def free(self) -> None:
        """Free everything; again is no error."""
        while self.device:
            self._attempt(self._cuda.free, self.device.popitem()[1])
        while self.marks:
            self._attempt(self._cuda.destroy_event, self.marks.pop())
        stream, self.stream = self.stream, None
        if stream is not None:
            self._attempt(self._cuda.destroy_stream, stream)
        self.host.clear()

    def _attempt(self, free: Callable[[Any], None], thing: Any) -> None:
        try:
            free(thing)
        except DeviceError as error:  # after an earlier error CUDA may refuse this too: go on with the rest
            log.warning("not freed: %s", error)


def describe_device() -> dict[str, Any]:
    """Return ``gpu``, ``compute_capability``, ``driver`` and ``cuda`` of this machine; None without a GPU."""
    try:
        device = find_cuda().describe()
    except GTPRuntimeError:
        return dict.fromkeys(("gpu", "compute_capability", "driver", "cuda"))
    return {
        "gpu": device["gpu"],
        "compute_capability": device["compute_capability"],
        "driver": device["driver"],
        "cuda": device["runtime"],
    }


def jetpack() -> str | None:
    """Return the Jetson Linux release, "L4T 36.4"; None elsewhere."""
    try:
        text = TEGRA_RELEASE.read_text("utf-8")
    except OSError:
        return None
    release = re.search(r"R(\d+).*?REVISION: ([\d.]+)", text)
    return f"L4T {release[1]}.{release[2]}" if release else None
