"""What one engine needs of CUDA: memory on both sides for every tensor, one stream, and events between the steps."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gtp_runtime.cuda import Cuda
from gtp_runtime.errors import DeviceError
from gtp_runtime.manifest import TensorSpec

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

    def upload(self, names: Sequence[str]) -> None:
        """Copy tensors to the device, in the stream's order."""
        for name in names:
            self._cuda.upload(self.device[name], self.host[name], self.stream)

    def download(self, names: Sequence[str]) -> None:
        """Copy tensors from the device, in the stream's order."""
        for name in names:
            self._cuda.download(self.host[name], self.device[name], self.stream)

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
