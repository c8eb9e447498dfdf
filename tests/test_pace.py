"""Rate and time left of work on images, on a terminal and in a log."""

from collections.abc import Callable

import pytest

from gtp_export import console, pace
from gtp_export.pace import Pace

Clock = Callable[[float], None]


def test_rate_and_time_left_count_from_where_the_work_went_on() -> None:
    now = 100.0
    found = Pace(50_000, lambda: now)
    assert found.said(0.6) == ", 30,000 of 50,000 images"
    now = 110.0
    assert found.said(0.7) == ", 35,000 of 50,000 images, 500 a second, 30 s left"
    now = 400.0
    assert found.said(0.75) == ", 37,500 of 50,000 images, 25 a second, 8 min 20 s left"
    now = 20_100.0
    assert found.said(0.8) == ", 40,000 of 50,000 images, 0.5 a second, 5 h 33 min left"
    assert found.said(0.1) == ", 5,000 of 50,000 images", "the same images are gone through again"
    now = 20_110.0
    assert found.said(0.2) == ", 10,000 of 50,000 images, 500 a second, 1 min 20 s left"


def test_what_is_not_counted_in_images_has_no_pace() -> None:
    assert Pace(0).said(0.5) == ""
    assert not Pace(0).is_due()


def test_a_log_hears_of_it_twice_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console.Verbosity, "quiet", False)
    monkeypatch.setattr(pace, "LOG_SECONDS", 0.0)
    with console.progress("starting", 10) as update:
        update("measuring", 0.1)
        update("measuring", 0.3)
    monkeypatch.setattr(pace, "LOG_SECONDS", 3600.0)
    with console.progress("starting", 10) as update:
        update("measuring", 0.1)
        update("measuring", 0.3)
    assert capsys.readouterr().err.splitlines() == ["measuring", "measuring 30%, 3 of 10 images", "measuring"]


def test_other_work_has_its_own_unit_and_may_end_by_time() -> None:
    now = 100.0
    found = Pace(100, lambda: now, unit="trials", seconds=60)
    assert found.said(0.0) == ", 0 of 100 trials"
    now = 130.0
    assert found.said(0.1) == ", 10 of 100 trials, 20.0 a minute, 30 s left"
