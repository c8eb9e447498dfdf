"""The process that ``footprint`` starts: loads a file, runs it, and prints when it answered and its peak memory."""

import json
import sys
import time
import warnings
from pathlib import Path

RUNS = 3  # after the first answer: an engine may take more memory in the second run
STATUS = Path("/proc/self/status")


def clock() -> float:
    """Return seconds on a clock that all processes of this machine share."""
    return time.monotonic()


def main(arguments: list[str]) -> None:
    """Run ``[start, request]`` and print ``[seconds, bytes]``, JSON, as the last line.

    Args:
        arguments: the time at which the process was started, and what to ``load``: JSON of path, backend, options.
    """
    import numpy as np

    from gtp_runtime.errors import RandomWeightsWarning
    from gtp_runtime.loading import load

    warnings.simplefilter("ignore", RandomWeightsWarning)
    path, backend, options = json.loads(arguments[1])
    with load(path, backend, **options) as model:
        spec = model.entry.inputs[0]
        images = np.zeros(spec.shape, spec.dtype)
        model.run(images)
        seconds = clock() - float(arguments[0])
        for _ in range(RUNS):
            model.run(images)
    sys.stdout.write(json.dumps([seconds, peak_bytes()]) + "\n")


def peak_bytes() -> int:
    """Return the peak resident memory of this process in bytes.

    Linux counts it per program: getrusage's ru_maxrss would include that of the process that started this one.
    """
    try:
        lines = STATUS.read_text("ascii").splitlines()
    except OSError:
        lines = []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return found[0] if found else _from_usage()


def _from_usage() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
