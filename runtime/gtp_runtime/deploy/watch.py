"""Watches how long the runs of a loaded file take, without a lock.

Each run adds its time by operations that are atomic in CPython (``next`` of a count, ``append`` to a deque), so threads
never wait for each other here. Statistics are worked out from a copy when they are asked for.
"""

import itertools
import logging
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

log = logging.getLogger(__name__)
RECENT = 2000  # runs that the percentiles are of
WARMUP = 20  # first runs that count for no comparison
SPAN = 200  # runs after the warm-up, and latest runs, whose medians are compared
EVERY = 1000  # runs between two looks at the drift
SLOWER = 1.5  # drift from which on the log warns


@dataclass(frozen=True)
class Stats:
    """Latency of the runs of a loaded file, as its callers saw it: waiting for other threads is included.

    Attributes:
        count: runs that finished since then.
        since: when the file was loaded: ISO 8601, UTC.
        window: latest runs that the percentiles are of, at most 2,000.
        p50_ms, p99_ms: percentiles in milliseconds; None without a run.
        first_p50_ms: median of runs 21 to 220; None before they are done.
        drift: median of the latest 200 runs over ``first_p50_ms``, so 2 is twice as slow; None before run 420.
        missed: runs that a ``timeout`` stopped; they count nowhere else.
    """

    count: int
    since: str
    window: int
    p50_ms: float | None
    p99_ms: float | None
    first_p50_ms: float | None
    drift: float | None
    missed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class Watch:
    """The times of a file's runs.

    Args:
        name: of the file, for the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._since = time.time()
        self._numbers = itertools.count(1)
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT)
        self._first: deque[float] = deque(maxlen=SPAN)
        self._missed_numbers = itertools.count(1)
        self._missed: deque[int] = deque(maxlen=RECENT)
        self._warned = False

    def add(self, seconds: float) -> None:
        """Add a run."""
        number = next(self._numbers)
        self._recent.append((number, seconds))
        if WARMUP < number <= WARMUP + SPAN:
            self._first.append(seconds)
        elif number % EVERY == 0:
            self._look()

    def miss(self) -> None:
        """Add a run that its deadline stopped."""
        self._missed.append(next(self._missed_numbers))

    def stats(self) -> Stats:
        """Return the statistics of the runs so far."""
        recent = self._recent.copy()
        times = 1e3 * np.array([seconds for _, seconds in recent])
        count = max((number for number, _ in recent), default=0)
        p50, p99 = (float(value) for value in np.percentile(times, [50, 99])) if len(times) else (None, None)
        first = self._first.copy()
        start = 1e3 * float(np.median(first)) if len(first) == SPAN else None
        drift = None if start is None or count < WARMUP + 2 * SPAN else float(np.median(times[-SPAN:])) / start
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._since))
        missed = max(self._missed.copy(), default=0)  # threads may append out of turn
        return Stats(count, since, len(times), p50, p99, start, drift, missed)

    def _look(self) -> None:
        """Warn in the log when the drift comes above the limit, once until it was below again."""
        stats = self.stats()
        slow = stats.drift is not None and stats.drift > SLOWER
        if slow and not self._warned:
            log.warning(
                "%s became slower: the median of the latest %d runs is %.2f times that of the first (%.2f ms): check "
                "the clocks, the temperature and the load of this device",
                *(self._name, SPAN, stats.drift, stats.first_p50_ms),
            )
        self._warned = slow
