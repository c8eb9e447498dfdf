"""The CUDA functions that an engine needs (buffers, streams, events): one interface to two libraries.

pycuda is used if it is installed, else cuda-python. Both work in the primary context, which torch shares.
"""

import logging
from typing import Any, Protocol

import numpy as np

from gtp_runtime.errors import BackendMissingError, DeviceError, first_line
from gtp_runtime.extras import is_installed

log = logging.getLogger(__name__)


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
        from gtp_runtime.cuda.pycuda import PyCuda

        return PyCuda()
    if is_installed("cuda.bindings"):
        log.debug("CUDA through cuda-python: pycuda is not installed")
        from gtp_runtime.cuda.cuda_python import CudaPython

        return CudaPython()
    raise BackendMissingError("no CUDA for Python here: pip install cuda-python, or on a Jetson pip install pycuda")
