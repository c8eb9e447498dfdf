"""What a file costs a device beside latency: its size, the memory of a process that runs it, and the time to start."""

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gtp_runtime.errors import DeviceError, InputError, RandomWeightsWarning
from gtp_runtime.manifest import find_graph, read_manifest
from gtp_runtime.messages import one_line

STARTS = 3
RUNS = 3  # after the first answer: an engine may take more memory in the second run
STATUS = Path("/proc/self/status")
PATIENCE = 600.0  # seconds that one start may take


@dataclass(frozen=True)
class Footprint:
    """What a file costs beside latency. Figures of processes are medians.

    Attributes:
        file_bytes: size of the file, with that of the file that holds its weights.
        peak_mib: peak resident memory in MiB of a process that loads the file and runs it, Python and the inference
            engine included; memory of a GPU is not counted. None if it was not measured.
        cold_start_ms: from the start of the process to its first answer, in milliseconds: Python, the inference engine,
            checks and loading included, with files in the page cache. None if it was not measured.
        starts: how many processes were started.
    """

    file_bytes: int
    peak_mib: float | None = None
    cold_start_ms: float | None = None
    starts: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def file_bytes(path: "str | os.PathLike[str]") -> int:
    """Return the size of a file of an artifact directory in bytes, with that of the file that holds its weights.

    Raises:
        ManifestError: no manifest beside it, or one that does not list it.
    """
    file = find_graph(Path(path))
    manifest = read_manifest(file.parent)
    entry = manifest.entry(file.name)
    data = 0 if entry.external_data is None else manifest.entry(entry.external_data).size
    return entry.size + data


def measure_footprint(
    path: "str | os.PathLike[str]", backend: str = "auto", *, starts: int = STARTS, **options: Any
) -> Footprint:
    """Start processes that load a file and run it, one after the other, and return the medians.

    A process of its own has neither torch nor whatever else this one has loaded. A backend that an application has
    registered is not there.

    Args:
        path: a file of an artifact directory, or the directory, which means ``model.onnx``.
        backend, options: as for ``load``.
        starts: number of processes, 1 or more.

    Raises:
        InputError: an invalid number of starts.
        DeviceError: the process failed, or took longer than ``PATIENCE``.
        ManifestError: no manifest, or one that does not list the file.
    """
    if not isinstance(starts, int) or isinstance(starts, bool) or starts < 1:
        raise InputError(f"starts={starts!r}: give a whole number, 1 or more")
    size = file_bytes(path)
    given = {name: value for name, value in options.items() if value is not None}
    request = json.dumps([os.fspath(path), backend, given], default=os.fspath)
    runs = [_start(request) for _ in range(starts)]
    seconds, peaks = zip(*runs, strict=True)
    return Footprint(size, float(np.median(peaks)) / 2**20, float(np.median(seconds)) * 1e3, starts)


def _start(request: str) -> tuple[float, int]:
    """Return the seconds to the first answer and the peak memory in bytes of one process."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from gtp_runtime import footprint, load; "
    code += "footprint.first_answer(load, sys.argv[1:])"
    command = [sys.executable, "-c", code, repr(clock()), request]
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DeviceError(f"a process of its own could not run the file: {one_line(error)}") from error
    lines = process.stdout.splitlines()
    if process.returncode or not lines:
        reason = next(reversed(process.stderr.strip().splitlines()), f"exit code {process.returncode}")
        raise DeviceError(f"a process of its own could not run the file: {one_line(reason)}")
    seconds, peak = json.loads(lines[-1])
    return seconds, peak


def clock() -> float:
    """Return seconds on a clock that all processes of this machine share."""
    return time.monotonic()


def first_answer(load: Callable[..., Any], arguments: list[str]) -> None:
    """Run ``[start, request]`` in the process that was started, and print ``[seconds, bytes]``, JSON, as the last line.

    Args:
        load: ``gtp_runtime.load``, which this module cannot import: a loaded model's latency carries its footprint.
        arguments: the time at which the process was started, and what to load: JSON of path, backend, options.
    """
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
    peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return peaks[0] if peaks else _from_usage()


def _from_usage() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
