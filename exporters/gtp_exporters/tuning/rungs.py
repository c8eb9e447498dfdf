"""The growing part of the images that a trial is judged on, and when it is given up."""

from collections.abc import Iterable, Sequence

from gtp_exporters.tuning.results import Loss, Result

FIRST = 64  # images
FACTOR = 4
SURE = 2.0  # standard errors


def rungs(images: int) -> list[int]:
    """Return how many images each rung ends at: 64, 256, 1024, ..., all."""
    ends, end = [], FIRST
    while end * FACTOR <= 2 * images:  # the last step is at least twice as many
        ends.append(end)
        end *= FACTOR
    return [*[end for end in ends if end < images], images]


def hopeless(result: Result, loss: Loss, timed: Iterable[Result], error: float, max_drop: float | None) -> str:
    """Return why a trial can no longer be on the front, or be chosen; "" if it can.

    Args:
        result: the trial, with its divergence on every rung so far.
        loss: on the images of the last of these rungs.
        timed: trials with a measured latency.
        error: of the estimate of its latency ratio.
        max_drop: limit in points; None where latency is limited.
    """
    if max_drop is not None and loss.limited - SURE * loss.limited_se > max_drop:
        return f"loses {loss.limited:.2f} points on {loss.images} images, --max-drop allows {max_drop:g}"
    better = _better(result, loss, timed, error)
    if better is None:
        return ""
    return f"diverges more than {_called(better)} on the same {loss.images} images and is not estimated to be faster"


def _better(result: Result, loss: Loss, timed: Iterable[Result], error: float) -> Result | None:
    """Return a trial that is surely as fast as estimated here, and diverges less on the same images."""
    rung = len(result.rungs) - 1
    for other in timed:
        if other.timing is None or len(other.rungs) <= rung or other.timing.ratio > result.estimate - error:
            continue
        if result.rungs[rung] - loss.divergence_se > other.rungs[rung]:
            return other
    return None


def _called(result: Result) -> str:
    return "the recipe's default" if result.trial is None else f"trial {result.trial}"


def dominated(result: Result, error: float, timed: Sequence[Result]) -> str:
    """Return why a trial is not worth an export: something timed is better and surely as fast; "" otherwise."""
    assert result.loss is not None
    for other in timed:
        if other.timing is None or other.loss is None:
            continue
        faster = other.timing.ratio <= result.estimate - error
        if faster and other.loss.divergence <= result.loss.divergence and other.loss.limited <= result.loss.limited:
            return f"{_called(other)} is better and faster than estimated here"
    return ""
