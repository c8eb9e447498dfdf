"""The pycuda backend, which Jetsons use, on a pycuda of numpy: what it calls, and that its errors become ours."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gtp_runtime.backends.tensorrt.cuda import Buffers, find_cuda
from gtp_runtime.errors import DeviceError
from gtp_runtime.manifest import TensorSpec


class FakeError(Exception):
    """pycuda.driver.Error."""


class Handle:
    """A stream or an event: as pycuda's, it destroys itself with its last reference, in the current context."""

    alive = 0

    def __init__(self) -> None:
        Handle.alive += 1
        self.handle = 7

    def __del__(self) -> None:
        Handle.alive -= FakeContext.depth  # not outside of a context

    def synchronize(self) -> None:
        """Copies happen at once."""

    def record(self, stream: "Handle") -> None:
        """Copies happen at once."""

    def time_till(self, end: "Handle") -> float:
        return 1.5


class FakeContext:
    depth = 0

    def push(self) -> None:
        FakeContext.depth += 1

    @staticmethod
    def pop() -> None:
        FakeContext.depth -= 1


def fake_driver(broken: str = "") -> Any:
    device = SimpleNamespace(
        retain_primary_context=FakeContext, compute_capability=lambda: (8, 7), name=lambda: "Orin (nvgpu)"
    )

    def fail(*_arguments: object) -> Any:
        raise FakeError("cuInit failed: no CUDA-capable device is detected")

    def copy(to: Any, source: Any, stream: Any) -> None:
        np.copyto(to if isinstance(to, np.ndarray) else to.data, source.data if hasattr(source, "free") else source)

    class Allocation:
        def __init__(self, size: int) -> None:
            self.data, self.free = np.zeros(size // 4, np.float32), lambda: None

        def __int__(self) -> int:
            return 4096

    return SimpleNamespace(
        Error=FakeError,
        Context=FakeContext,
        Device=lambda index: device,
        Stream=Handle,
        Event=Handle,
        init=fail if broken == "init" else lambda: None,
        mem_alloc=fail if broken == "mem_alloc" else Allocation,
        pagelocked_empty=np.empty,
        memcpy_htod_async=copy,
        memcpy_dtoh_async=copy,
        get_driver_version=lambda: 12060,
        get_version=lambda: (12, 6, 0),
    )


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def run(broken: str = "") -> Any:
        package, driver = ModuleType("pycuda"), ModuleType("pycuda.driver")
        vars(driver).update(vars(fake_driver(broken)))
        vars(package)["driver"] = driver
        vars(package)["__spec__"] = importlib.machinery.ModuleSpec("pycuda", None)
        monkeypatch.setitem(sys.modules, "pycuda", package)
        monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
        monkeypatch.delitem(sys.modules, "gtp_runtime.backends.tensorrt.pycuda", raising=False)
        return find_cuda()

    yield run
    sys.modules.pop("gtp_runtime.backends.tensorrt.pycuda", None)


def test_pycuda_goes_first_and_describes_the_device(load: Any) -> None:
    cuda = load()
    assert cuda.name == "pycuda"
    assert cuda.describe() == {
        "gpu": "Orin (nvgpu)",
        "compute_capability": "8.7",
        "driver": "12.6",
        "runtime": "12.6",
    }


def test_contexts_are_pushed_and_popped(load: Any) -> None:
    cuda = load()
    cuda.enter()
    assert FakeContext.depth == 1
    cuda.leave()
    assert FakeContext.depth == 0


def test_copies_streams_and_events(load: Any) -> None:
    cuda = load()
    stream, memory = cuda.stream(), cuda.allocate(16)
    host = cuda.pinned((2, 2), np.dtype("float32"))
    host[:] = [[1, 2], [3, 4]]
    cuda.upload(memory, host.reshape(-1), stream)
    back = cuda.pinned((4,), np.dtype("float32"))
    cuda.download(back, memory, stream)
    cuda.wait(stream)
    assert back.tolist() == [1, 2, 3, 4]
    assert (cuda.handle(stream), cuda.address(memory)) == (7, 4096)
    assert cuda.milliseconds(cuda.event(), cuda.event()) == 1.5
    cuda.free(memory)


def test_streams_and_events_go_with_the_buffers(load: Any) -> None:
    cuda = load()
    cuda.enter()
    before = Handle.alive
    buffers = Buffers(cuda, [TensorSpec("images", [1, 4], "float32")], 4)
    assert Handle.alive == before + 5
    buffers.free()
    assert Handle.alive == before
    buffers.free()
    cuda.leave()


def test_errors_are_ours(load: Any) -> None:
    with pytest.raises(DeviceError, match="CUDA-capable.*tegrastats"):
        load("init")
    with pytest.raises(DeviceError, match="CUDA: cuInit failed"):
        load("mem_alloc").allocate(4)


def test_pycuda_without_a_driver(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = find_cuda.__globals__["_find"]

    def broken() -> Any:
        monkeypatch.setitem(sys.modules, "pycuda.driver", ModuleType("pycuda.driver"))  # loads, without its names
        monkeypatch.delitem(sys.modules, "gtp_runtime.backends.tensorrt.pycuda", raising=False)
        del sys.modules["pycuda"].driver  # type: ignore[attr-defined]
        monkeypatch.delitem(sys.modules, "pycuda.driver")
        return real()

    load()
    monkeypatch.setattr("gtp_runtime.backends.tensorrt.cuda._find", broken)
    with pytest.raises(DeviceError, match="CUDA cannot .*driver"):
        find_cuda()
