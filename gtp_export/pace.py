"""How fast long work goes, and how long it still takes."""

import time
from collections.abc import Callable

LOG_SECONDS = 30.0  # between two lines of a log


class Pace:
    """Rate and time left, from the shares that a ``Progress`` is told.

    Args:
        images: how many there are; 0 where the work is not counted in images, which has no pace.
        clock: seconds.
    """

    def __init__(self, images: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._images, self._clock = images, clock
        self._start: tuple[float, float] | None = None  # time and share when first told: work may be resumed
        self._said_at = clock()

    def said(self, share: float) -> str:
        """Return ", 12,400 of 50,000 images, 431 a second, 1 min 27 s left"; less where it is not known yet."""
        if not self._images:
            return ""
        now, done = self._clock(), f", {round(share * self._images):,} of {self._images:,} images"
        if self._start is None:
            self._start = now, share
        seconds, gone = now - self._start[0], share - self._start[1]
        if seconds <= 0 or gone <= 0:
            return done
        rate = gone / seconds
        return f"{done}, {rate * self._images:.{0 if rate * self._images >= 10 else 1}f} a second, {_time(share, rate)}"

    def is_due(self) -> bool:
        """Whether a log should hear of it again: every ``LOG_SECONDS``, where there are images."""
        if not self._images or self._clock() - self._said_at < LOG_SECONDS:
            return False
        self._said_at = self._clock()
        return True


def _time(share: float, rate: float) -> str:
    seconds = round((1 - share) / rate)
    minutes, hours = seconds // 60, seconds // 3600
    if hours:
        return f"{hours} h {minutes % 60} min left"
    return f"{minutes} min {seconds % 60} s left" if minutes else f"{seconds} s left"
