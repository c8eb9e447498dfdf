"""A load that fails closes what was loaded before it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifacts import DIGITS, Command
from fake_cluster import FakeCluster

from gtp_exporters.draft import Draft
from gtp_exporters.proof import prove
from gtp_runtime import loading
from gtp_runtime.backends import BACKENDS
from gtp_runtime.errors import BackendMissingError, DeviceError, FleetError
from gtp_runtime.evaluation import Job
from gtp_runtime.fleet import Fleet, Timing, fleet_scoring, time_files
from gtp_runtime.images.labels import find_image_set
from gtp_runtime.manifest import read_manifest
from gtp_runtime.messages import quiet
from gtp_runtime.reference import read_reference


class Loads:
    """Counts what ONNX Runtime's backend opens and closes; the second opening fails."""

    def __init__(self, error: Exception) -> None:
        self.error, self.opened, self.closed = error, 0, 0
        self.start = BACKENDS["onnxruntime"].open

    def __call__(self, path: Path, entry: Any, options: Any) -> Any:
        if self.opened == 1:
            raise self.error
        self.opened += 1
        backend = self.start(path, entry, options)
        close = backend.close

        def closed() -> None:
            self.closed += 1
            close()

        backend.close = closed  # type: ignore[method-assign]
        return backend


@pytest.fixture
def second_fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], Loads]:
    def arrange(error: Exception) -> Loads:
        loads = Loads(error)
        monkeypatch.setitem(BACKENDS._entries, "onnxruntime", replace(BACKENDS["onnxruntime"], open=loads))
        return loads

    return arrange


@pytest.mark.parametrize("arguments", [("bench", "--no-footprint"), ("validate", "--data", DIGITS / "images" / "3")])
def test_commands(
    command: Command, digits: Path, second_fails: Callable[[Exception], Loads], arguments: tuple[Any, ...]
) -> None:
    loads = second_fails(DeviceError("the device is gone"))
    name, *options = arguments
    assert command(name, digits / "model.onnx", *options).code == 4
    assert (loads.opened, loads.closed) == (1, 1)


def test_a_proof(digits: Path, second_fails: Callable[[Exception], Loads]) -> None:
    loads = second_fails(BackendMissingError("no"))
    with pytest.raises(BackendMissingError):
        prove(Draft(digits, read_manifest(digits), read_reference(digits / "reference.npz")), 1, quiet)
    assert (loads.opened, loads.closed) == (1, 1)


def test_timing(digits: Path, second_fails: Callable[[Exception], Loads]) -> None:
    loads = second_fails(BackendMissingError("no"))
    with pytest.raises(BackendMissingError):
        time_files(Timing((digits / "dense.onnx", digits / "model.onnx"), "onnxruntime"))
    assert (loads.opened, loads.closed) == (1, 1)


def test_a_node_of_a_fleet(digits: Path, second_fails: Callable[[Exception], Loads]) -> None:
    fleet = Fleet(FakeCluster("a"))
    with loading.load(digits / "model.onnx") as model, loading.load(digits / "dense.onnx") as dense:
        job = Job([model], dense, find_image_set(DIGITS / "images", model.manifest), [0])
        loads = second_fails(BackendMissingError("no"))
        with pytest.raises(FleetError):
            list(fleet_scoring(fleet)(job, range(len(job.images))))
    assert (loads.opened, loads.closed) == (1, 1)
    assert fleet.report().left_out == {"a": "no"}
