"""Any number of images in runs that a file takes; and the runs that prove a file which takes a range of batches."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from gtp_runtime.manifest import BatchRange
from gtp_runtime.messages import Progress

Outputs = Mapping[str, np.ndarray]


def runs(images: np.ndarray, batches: BatchRange) -> Iterator[tuple[np.ndarray, int]]:
    """Yield batches of (N, ...) images, N > 0, in order, and how many images of each count.

    The last batch is as large as what is left, and filled up with zeros where a run takes more.
    """
    for start in range(0, len(images), batches.max):
        part = images[start : start + batches.max]
        missing = max(0, batches.min - len(part))
        padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part
        yield padded, len(part)


def proving_runs(count: int, batches: BatchRange) -> list[np.ndarray]:
    """Return the numbers of the images in each run of a proof: every image is in a full one, of the most images.

    A middle number and the fewest follow, one run each. Where images are too few, they come again.
    """
    full = np.arange(-(-count // batches.max) * batches.max).reshape(-1, batches.max)
    others = [np.arange(size) for size in batches.sizes[1:]]
    return [chosen % count for chosen in (*full, *others)]


def worst_outputs(
    run: Callable[[np.ndarray], dict[str, np.ndarray]],
    images: np.ndarray,
    batches: BatchRange,
    expected: Outputs,
    progress: Progress,
) -> dict[str, np.ndarray]:
    """Run (N, ...) images in batches that stand for all in a range, and return the worst outputs of each, (N, ...).

    Args:
        run: gives the outputs of a batch by name.
        images: preprocessed.
        batches: the range.
        expected: the answers (N, ...) by name that are compared.
        progress: called with "validating" and the share done.
    """
    chosen, parts = proving_runs(len(images), batches), []
    for number, rows in enumerate(chosen, 1):
        parts.append(run(images[rows]))
        progress("validating", number / len(chosen))
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    worst = worst_answers(np.concatenate(chosen), outputs, expected)
    return {name: values[worst] for name, values in outputs.items()}


def worst_answers(rows: np.ndarray, answers: Outputs, expected: Outputs) -> np.ndarray:
    """Return for each image the place of the answer that is furthest from the expected one.

    Args:
        rows: the number of the image of each answer.
        answers: (answers, ...) by output.
        expected: (images, ...) by output.
    """
    errors = np.max([_errors(answers[name], values[rows], values) for name, values in expected.items()], axis=0)
    order = np.lexsort((-errors, rows))  # by image, the largest error first
    return np.asarray(order[np.unique(rows[order], return_index=True)[1]])


@np.errstate(invalid="ignore", over="ignore")
def _errors(answers: np.ndarray, expected: np.ndarray, every: np.ndarray) -> np.ndarray:
    off = np.abs(answers.astype(np.float64) - expected).reshape(len(answers), -1).max(1)
    largest = float(np.nan_to_num(np.abs(every), posinf=0).max())
    return np.nan_to_num(off / max(largest, 1e-30), nan=np.inf)
