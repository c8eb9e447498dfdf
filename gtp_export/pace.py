"""How fast long work goes, and how long it still takes."""

import time
from collections.abc import Callable

LOG_SECONDS = 30.0  # between two lines of a log


class Pace:
    """Rate and time left, from the shares that a ``Progress`` is told.

    Args:
        images: how many there are; 0 where the work is not counted in images, which has no pace.
        clock: seconds.
        unit: what is counted instead of images.
        seconds: after which the work ends in any case.
    """

    def __init__(
        self,
        images: int,
        clock: Callable[[], float] = time.monotonic,
        unit: str = "images",
        seconds: float | None = None,
    ) -> None:
        self._images, self._clock, self._unit = images, clock, unit
        self._end = None if seconds is None else clock() + seconds
        self._start: tuple[float, float] | None = None  # time and share when first told: work may be resumed
        self._said_at = clock()

    def said(self, share: float) -> str:
        """Return ", 12,400 of 50,000 images, 431 a second, 1 min 27 s left"; less where it is not known yet."""
        if not self._images:
            return ""
        now, done = self._clock(), f", {round(share * self._images):,} of {self._images:,} {self._unit}"
        if self._start is None or share < self._start[1]:  # at first, and where the same images are gone through again
            self._start = now, share
        seconds, gone = now - self._start[0], share - self._start[1]
        if seconds <= 0 or gone <= 0:
            return done
        rate = gone / seconds
        return f"{done}, {_rate(rate * self._images)}, {_time(self._left(share, rate, now))}"

    def _left(self, share: float, rate: float, now: float) -> float:
        left = (1 - share) / rate
        return left if self._end is None else max(0.0, min(left, self._end - now))

    def is_due(self) -> bool:
        """Whether a log should hear of it again: every ``LOG_SECONDS``, where there are images."""
        if not self._images or self._clock() - self._said_at < LOG_SECONDS:
            return False
        self._said_at = self._clock()
        return True


def _rate(rate: float) -> str:
    return f"{rate:.{0 if rate >= 10 else 1}f} a second" if rate >= 0.5 else f"{60 * rate:.1f} a minute"


def _time(left: float) -> str:
    seconds = round(left)
    minutes, hours = seconds // 60, seconds // 3600
    if hours:
        return f"{hours} h {minutes % 60} min left"
    return f"{minutes} min {seconds % 60} s left" if minutes else f"{seconds} s left"
