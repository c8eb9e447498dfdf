"""The deadline of a call."""

import math
import time

from gtp_runtime.errors import DeadlineError, InputError


class Deadline:
    """The time that a call may take, from now on.

    Args:
        timeout: seconds, above 0.

    Raises:
        InputError: an invalid timeout.
    """

    def __init__(self, timeout: float) -> None:
        number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if not (number and math.isfinite(timeout) and timeout > 0):
            raise InputError(f"timeout={timeout!r}: give seconds, above 0, or None")
        self._timeout, self._end = timeout, time.monotonic() + timeout

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            DeadlineError: none is left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.missed()
        return left

    def missed(self) -> DeadlineError:
        """Return the error of a call that was stopped."""
        return DeadlineError(f"the call was stopped after its timeout of {self._timeout:g} s: the next one may be made")
