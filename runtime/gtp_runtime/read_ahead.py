"""Calls a function on many things in threads, in bounded memory: results come in order, a few are ready ahead."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from gtp_runtime.errors import InputError

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 2  # results for each thread that wait to be taken


def read_ahead(function: Callable[[T], R], items: Iterable[T], workers: int) -> Generator[tuple[T, R], None, None]:
    """Yield each item with its result, in order; an exception comes in the place of its item.

    Args:
        function: what is called; it must be safe to call from several threads.
        items: taken one by one, at most ``AHEAD`` for each thread before their results are.
        workers: threads; see ``count_workers``.
    """
    with ThreadPoolExecutor(workers, "gtp-read") as pool:
        waiting: deque[tuple[T, Future[R]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > AHEAD * workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def count_workers(workers: int | None) -> int:
    """Return how many threads to read with; None is one for each CPU that this process may use.

    Raises:
        InputError: no whole number of 1 or more.
    """
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise InputError(f"workers={workers!r}: give a whole number, 1 or more")
    return workers
