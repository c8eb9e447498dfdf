"""A TensorRT and a CUDA of numpy: they behave as the real ones do where our backend touches them, and keep a log.

What a stream is given happens late, as on a device: when the stream is waited for, with what the host's buffers hold
then. The engine adds in float32, whatever its precision: what fp16 rounds is tested on graphs
(tests/test_precision.py).
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np


class FakeCuda:
    """Device memory is a bytearray; copies and runs happen when the stream is waited for; every call is logged."""

    name = "fake"
    last: "FakeCuda"  # the newest

    def __init__(self, compute_capability: str = "8.7") -> None:
        FakeCuda.last = self
        self.log: list[str] = []
        self.compute_capability = compute_capability
        self.memory: dict[int, bytearray] = {}
        self.alive: list[str] = []  # streams and events
        self.depth = 0
        self.queue: list[Callable[[], None]] = []  # of the stream

    def describe(self) -> dict[str, Any]:
        return {"gpu": "Fake", "compute_capability": self.compute_capability, "driver": "12.6", "runtime": "12.6"}

    def enter(self) -> None:
        self.depth += 1

    def leave(self) -> None:
        self.depth -= 1

    def stream(self) -> int:
        self.alive.append("stream")
        return 7

    def destroy_stream(self, stream: int) -> None:
        assert self.depth == 1
        self.alive.remove("stream")

    def handle(self, stream: int) -> int:
        return stream

    def event(self) -> list[int]:
        self.alive.append("event")
        return [0]

    def destroy_event(self, event: list[int]) -> None:
        assert self.depth == 1
        self.alive.remove("event")

    def record(self, event: list[int], stream: int) -> None:
        assert self.depth == 1
        event[0] = len(self.log)
        self.log.append("record")

    def milliseconds(self, start: list[int], end: list[int]) -> float:
        return float(end[0] - start[0])

    def allocate(self, size: int) -> int:
        address = 1000 * (len(self.memory) + 1)
        self.memory[address] = bytearray(size)
        return address

    def address(self, memory: int) -> int:
        return memory

    def free(self, memory: int) -> None:
        del self.memory[memory]

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        return np.zeros(shape, dtype)

    def upload(self, memory: int, array: np.ndarray, stream: int) -> None:
        self.log.append("upload")
        self.queue.append(lambda: self._write(memory, array))

    def download(self, array: np.ndarray, memory: int, stream: int) -> None:
        self.log.append("download")
        self.queue.append(lambda: self._read(array, memory))

    def wait(self, stream: int) -> None:
        self.log.append("wait")
        while self.queue:
            self.queue.pop(0)()

    def _write(self, memory: int, array: np.ndarray) -> None:
        self.memory[memory][: array.nbytes] = array.tobytes()

    def _read(self, array: np.ndarray, memory: int) -> None:
        array[...] = np.frombuffer(bytes(self.memory[memory][: array.nbytes]), array.dtype).reshape(array.shape)


class FakeEngine:
    """Computes class c = sum of the image + c; ``refuse`` names the call that returns None or False.

    A first axis of -1 is as long as ``set_input_shape`` says.
    """

    def __init__(self, cuda: FakeCuda, shapes: dict[str, tuple[int, ...]], refuse: str) -> None:
        self.cuda, self.shapes, self.refuse = cuda, shapes, refuse
        self.addresses: dict[str, int] = {}
        self.images = abs(shapes["images"][0])
        self.num_io_tensors = len(shapes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.shapes)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name="FLOAT")

    def create_runtime_config(self) -> Any:
        cache = SimpleNamespace(
            deserialize=lambda blob: self.cuda.log.append(f"cache {bytes(blob)!r}") or True,
            serialize=lambda: b"kernels",
        )
        accepted = self.refuse != "cache"
        return SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=lambda given: accepted)

    def create_execution_context(self, config: Any = None) -> Any:
        return None if self.refuse == "context" else self

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return self.refuse != "bind"

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.shapes[name] == (-1, *shape[1:])
        self.images = shape[0]
        return self.refuse != "shape"

    def execute_async_v3(self, stream: int) -> bool:
        self.cuda.log.append("execute")
        self.cuda.queue.append(self._add)
        return self.refuse != "run"

    def _add(self) -> None:
        images, logits = (self.cuda.memory[self.addresses[name]] for name in ("images", "logits"))
        pixels, classes = (int(np.prod(self.shapes[name][1:])) for name in ("images", "logits"))
        totals = np.frombuffer(bytes(images), np.float32).reshape(-1, pixels)[: self.images].sum(1, keepdims=True)
        answers = (totals + np.arange(classes, dtype=np.float32)).tobytes()
        logits[: len(answers)] = answers


def fake_trt(cuda: FakeCuda, shapes: dict[str, tuple[int, ...]], version: str = "10.3.0", refuse: str = "") -> Any:
    """Return a module that looks like ``tensorrt``; ``runtimes`` are the runtimes that were made."""

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3)

    runtimes: list[Any] = []

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger, self.engine_host_code_allowed = logger, False
            runtimes.append(self)

        def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
            if refuse == "read":
                self.logger.log(1, "stdVersionRead == serializationVersion")
                return None
            return FakeEngine(cuda, shapes, refuse)

    return SimpleNamespace(__version__=version, ILogger=ILogger, Runtime=Runtime, runtimes=runtimes)
