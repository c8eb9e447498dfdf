"""Latency is taken in turn and summed up right; a clock of our own makes it exact."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gtp_runtime import latency
from gtp_runtime.errors import InputError
from gtp_runtime.latency import Latency, against_first, in_turn, median_stages, summarise


class Clock:
    """Stands still but while something runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def work(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds
            self.calls.append(name)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def test_warms_up_each_then_takes_turns(clock: Clock) -> None:
    times = in_turn([clock.work("a", 0.25), clock.work("b", 0.5)], seconds=15)
    assert clock.calls[: 2 * latency.WARMUP_RUNS] == ["a"] * latency.WARMUP_RUNS + ["b"] * latency.WARMUP_RUNS
    assert clock.calls[2 * latency.WARMUP_RUNS :] == ["a", "b"] * 20
    assert times == [[0.25] * 20, [0.5] * 20]


def test_a_quick_file_is_warmed_up_for_a_while(clock: Clock) -> None:
    in_turn([clock.work("a", 2**-12)], seconds=0)
    assert len(clock.calls) == np.ceil(latency.WARMUP_SECONDS * 2**12) + latency.MIN_RUNS > 4 * latency.WARMUP_RUNS


def test_runs_a_least_number_of_rounds_however_short_the_time(clock: Clock) -> None:
    told: list[tuple[str, float | None]] = []
    work = [clock.work("a", 8), clock.work("b", 8)]
    times = in_turn(work, seconds=0, progress=lambda task, share=None: told.append((task, share)))
    assert [len(taken) for taken in times] == [latency.MIN_RUNS] * 2
    assert told == [("benchmarking", 1.0)] * latency.MIN_RUNS
    assert len(in_turn([clock.work("a", 8)], seconds=0, rounds=2)[0]) == 2


def test_progress_rises_to_one(clock: Clock) -> None:
    shares: list[float | None] = []
    in_turn([clock.work("a", 0.5)], seconds=10, progress=lambda task, share=None: shares.append(share))
    assert shares == [step / 20 for step in range(1, 21)]


@pytest.mark.parametrize("seconds", [np.inf, np.nan, -1, -0.5, "3", True, None])
def test_a_duration_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(InputError, match=r"^seconds="):
        in_turn([lambda: pytest.fail("it ran")], seconds)


@pytest.mark.parametrize("rounds", [0, -1, 1.5, "2", True, np.nan])
def test_rounds_that_are_none_are_refused(rounds: Any) -> None:
    with pytest.raises(InputError, match=r"^rounds="):
        in_turn([lambda: pytest.fail("it ran")], 0, rounds=rounds)


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(InputError):
        in_turn([], 1)


def test_the_median_of_each_stage() -> None:
    taken = iter([{"h2d": 3.0, "compute": 5.0}, {"h2d": 1.0, "compute": 9.0}, {"h2d": 2.0, "compute": 7.0}])
    assert median_stages(lambda: next(taken), runs=3) == {"h2d": 2.0, "compute": 7.0}


def test_summarise() -> None:
    result = summarise("model.onnx", 4, [step / 1000 for step in range(1, 102)])
    assert (result.file, result.batch, result.runs) == ("model.onnx", 4, 101)
    percentiles = (result.p50_ms, result.p90_ms, result.p95_ms, result.p99_ms)
    assert percentiles == pytest.approx((51, 91, 96, 100))
    assert result.mean_ms == pytest.approx(51)
    assert result.cv == pytest.approx(np.std(range(1, 102)) / 51)
    assert result.throughput == pytest.approx(4 * 1000 / 51)
    assert result.to_dict() == vars(result)


def taking(name: str, milliseconds: float) -> Latency:
    return summarise(name, 1, [milliseconds / 1000] * 10)


def test_ratio_and_share_are_against_the_first() -> None:
    dense, gtp = against_first([taking("dense", 10), taking("gtp", 8.5)], [100, 70], ["dense", "gtp"])
    assert (dense.ratio, dense.macs_ratio, dense.share, dense.overhead) == (1.0, 1.0, None, None)
    assert (gtp.ratio, gtp.macs_ratio) == pytest.approx((0.85, 0.7))
    assert gtp.overhead is None
    assert gtp.share == pytest.approx(0.5), "15 % of the time for 30 % of the MACs"


def test_a_slower_file_has_a_negative_share() -> None:
    _, slow = against_first([taking("dense", 10), taking("gtp", 11)], [100, 80], ["dense", "gtp"])
    assert slow.share == pytest.approx(-0.5)


@pytest.mark.parametrize("macs", [[100, 100], [100, 120], [0, 70], [100, 0]])
def test_no_share_where_nothing_is_saved_or_macs_are_unknown(macs: list[int]) -> None:
    _, other = against_first([taking("dense", 10), taking("gtp", 8)], macs, ["dense", "gtp"])
    assert other.share is None
    assert other.macs_ratio == (macs[1] / macs[0] if all(macs) else None)


def test_overhead_is_over_the_free_drop_of_the_same_schedule() -> None:
    results = [taking("dense", 10), taking("gtp", 9), taking("drop", 6), taking("other", 9), taking("its drop", 5)]
    compared = against_first(results, [100, 70, 70, 60, 60], ["dense", "gtp", "drop", "gtp", "drop"])
    assert [result.overhead for result in compared] == pytest.approx([None, 1.5, 1.0, 1.8, 1.0])
