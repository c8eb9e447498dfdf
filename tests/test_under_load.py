"""The runtime as a device uses it for months: threads, deadlines, wrong inputs, loads, processes."""

import copy
import json
import math
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import SEVEN, python

import gtp_runtime
from gtp_runtime import Model, Stats
from gtp_runtime.backends.spec import Deadline
from gtp_runtime.deploy import watch
from gtp_runtime.deploy.watch import Watch
from gtp_runtime.errors import DeadlineError, DeviceError, GTPRuntimeError, InputError

BACKENDS = ("onnxruntime", "openvino")


@pytest.fixture(params=BACKENDS)
def loaded(request: pytest.FixtureRequest, digits: Path) -> Iterator[Model]:
    pytest.importorskip(request.param)
    with gtp_runtime.load(digits, request.param, threads=1) as model:
        yield model


SHORT_SOAK = """
import sys
sys.path[:0] = [{benchmarks!r}]
import pathlib, soak, gtp_runtime
place = pathlib.Path({digits!r})
with gtp_runtime.load(place, {backend!r}, threads=1) as model, gtp_runtime.load(place / "dense.onnx") as dense:
    assert soak.in_threads([model, dense], 400, 8) == 0
    soak.stop_again(model, 40)
    phases = [
        soak.measured(400, lambda count: soak.in_threads([model], count, 8)),
        soak.measured(40, lambda count: soak.stop_again(model, count)),
        soak.measured(10, lambda count: soak.load_again(place, {backend!r}, count)),
    ]
assert all(soak.is_steady(phase) for phase in phases), phases
"""


@pytest.mark.parametrize("backend", [BACKENDS[0], pytest.param(BACKENDS[1], marks=pytest.mark.full)])
def test_a_short_soak(digits: Path, backend: str) -> None:
    """In a process of its own, whose memory no other test uses."""
    pytest.importorskip(backend)
    benchmarks = str(Path(__file__).parents[1] / "benchmarks")
    ran = python(SHORT_SOAK.format(benchmarks=benchmarks, digits=str(digits), backend=backend))
    assert ran.code == 0, ran.err


def test_other_processes(digits: Path) -> None:
    """In a process of its own, which forks while it has one thread."""
    code = (
        f"sys.path[:0] = [{str(Path(__file__).parents[1] / 'benchmarks')!r}]; import soak, pathlib, gtp_runtime; "
        f"d = pathlib.Path({str(digits)!r}); "
        "print(*(soak.in_child(d, 'onnxruntime', m)['equal'] for m in ('fork', 'spawn'))); "
        "m = gtp_runtime.load(d, threads=1); print(soak.refused_after_fork(m), m.run(m.sample()).shape)"
    )
    ran = python(code)
    assert ran.out.split("\n")[:2] == ["True True", "True (1, 10)"], ran.err


def test_a_model_of_another_process_says_so(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gtp_runtime.load(digits, threads=1) as model:
        images = model.sample()
        monkeypatch.setattr("os.getpid", lambda: -1)
        with pytest.raises(GTPRuntimeError, match="forked"):
            model.run(images)
        model.close()
        monkeypatch.undo()
        assert model.run(images).shape == (1, 10), "the parent's, which closing in the child leaves alone"
        for take in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(InputError):
                take(model)


def test_the_next_call_works_after_wrong_ones(loaded: Model) -> None:
    images = loaded.sample()
    expected = loaded.run(images)
    for wrong in (images[:0], images[0], images.astype(np.float64), images[..., :-1], np.float32(1)):
        with pytest.raises(InputError, match="takes "):
            loaded.run(wrong)
        with pytest.raises(InputError):
            loaded.run_all(images[:0])
        assert np.array_equal(loaded.run(images), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite_are_reported_if_asked(digits: Path, model: Model, value: float) -> None:
    images = model.sample().copy()
    images[0, 1, 2, 3] = value
    model.run(images)
    with gtp_runtime.load(digits, threads=1, check_inputs=True) as checked:
        with pytest.raises(InputError, match=r"images \[0\] "):
            checked.run(images)
        assert np.array_equal(checked.run(model.sample()), model.run(model.sample()))
        assert checked.predict(SEVEN, topk=1)[0].label == "7"


def test_pixels_are_always_finite(digits_copy: Path) -> None:
    manifest = json.loads((digits_copy / "model.json").read_text("utf-8"))
    manifest["files"]["model.onnx"]["inputs"][0] |= {"shape": [1, 32, 32, 3], "dtype": "uint8"}
    (digits_copy / "model.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(InputError, match=r"check_inputs .*model\.onnx .*uint8"):
        gtp_runtime.load(digits_copy, check_inputs=True)


def test_a_deadline_stops_a_run(loaded: Model) -> None:
    images = loaded.sample()
    expected = loaded.run(images)
    with pytest.raises(DeadlineError, match=r"timeout of 1e-06 s"):
        loaded.run(images, timeout=1e-6)
    with pytest.raises(TimeoutError):
        loaded.predict([SEVEN] * 3, timeout=1e-6)
    with pytest.raises(DeadlineError, match=r"timeout of 0\.01 s"):
        loaded.run_all(np.repeat(images, 200, axis=0), timeout=0.01)
    assert loaded.stats().missed == 3
    assert np.array_equal(loaded.run(images, timeout=60), expected)
    assert np.array_equal(loaded.outputs(images, timeout=60)["logits"], expected)
    assert loaded.predict(SEVEN, topk=1, timeout=60)[0].label == "7"


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, "1", True])
def test_an_invalid_timeout(model: Model, timeout: Any) -> None:
    with pytest.raises(InputError, match=r"^timeout="):
        model.run(model.sample(), timeout=timeout)


def test_a_backend_that_cannot_stop_a_run(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gtp_runtime.load(digits, threads=1) as model:
        monkeypatch.delattr(type(model.backend), "run_within")
        with pytest.raises(InputError, match=r"onnxruntime .*timeout.*model\.stats"):
            model.run(model.sample(), timeout=1)
        assert model.run(model.sample()).shape == (1, 10)


def test_a_run_that_fails_is_one_typed_error(loaded: Model) -> None:
    inputs = {"wrong": loaded.sample()}
    with pytest.raises(DeviceError, match=r"model\.onnx: "):
        loaded.backend.run(inputs)
    run_within = loaded.backend.run_within  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match=r"model\.onnx: "):
        run_within(inputs, Deadline(60))
    assert loaded.run(loaded.sample()).shape == (1, 10)


@pytest.mark.parametrize("backend", [BACKENDS[0], pytest.param(BACKENDS[1], marks=pytest.mark.full)])
def test_closing_while_others_run(digits: Path, backend: str) -> None:
    pytest.importorskip(backend)
    model = gtp_runtime.load(digits, backend, threads=1)
    images, found = model.sample(), list[str]()

    def run() -> None:
        try:
            while True:
                model.run(images)
        except GTPRuntimeError as error:
            found.append(str(error))

    workers = [threading.Thread(target=run) for _ in range(4)]
    for worker in workers:
        worker.start()
    time.sleep(0.05)
    model.close()
    for worker in workers:
        worker.join(20)
    assert found == ["this model was closed: load it again"] * 4


def test_stats_of_a_model(digits: Path) -> None:
    with gtp_runtime.load(digits, threads=1) as model:
        assert model.stats() == Stats(0, model.stats().since, 0, None, None, None, None)
        run = model.timed()
        for _ in range(5):
            run()
        found = model.stats()
        assert (found.count, found.window) == (5, 5)
        assert found.p50_ms is not None and found.p99_ms is not None and 0 < found.p50_ms <= found.p99_ms
        assert found.to_dict()["count"] == 5
        assert time.strptime(found.since, "%Y-%m-%dT%H:%M:%SZ")


def test_stats_count_every_run_of_every_thread() -> None:
    times = Watch("x")

    def run() -> None:
        for _ in range(5000):
            times.add(1e-3)
            times.miss()

    workers = [threading.Thread(target=run) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = times.stats()
    assert (found.count, found.window, found.missed) == (40_000, watch.RECENT, 40_000)
    assert (found.p50_ms, found.p99_ms, found.drift) == pytest.approx((1, 1, 1))


def test_drift_is_seen_and_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    times = Watch("model.onnx")
    for seconds, runs in ((5.0, watch.WARMUP), (1e-3, watch.SPAN), (1e-3, 300)):
        for _ in range(runs):
            times.add(seconds)
    assert (times.stats().first_p50_ms, times.stats().drift) == pytest.approx((1, 1))
    for _ in range(3 * watch.EVERY):
        times.add(2e-3)
    assert times.stats().drift == pytest.approx(2)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("gtp_runtime.deploy.watch", "WARNING")
    assert record.getMessage().startswith("model.onnx became slower: the median of the latest 200 runs is 2.00 times")
    for _ in range(2 * watch.EVERY):
        times.add(1e-3)
    for _ in range(2 * watch.EVERY):
        times.add(3e-3)
    assert len(caplog.records) == 2
