"""``make fuzz``: each target for a while in a process of its own; what is found is written to its corpus.

A finding is an error that is not ours, a run of more than 5 seconds, more than 1 GB of memory, or the process's death.
"""

import argparse
import hashlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FrameType

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / name) for name in (".", "exporters", "runtime", "models")]
CORPUS = HERE / "corpus"
SECONDS, MEGABYTES = 5, 1000


class TooLong(BaseException):
    """A run took longer than is allowed."""


def main() -> int:
    """Run the targets that are asked for, one after another; return 1 where something was found."""
    from targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all without any")
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    seed = int(time.time()) if given.seed is None else given.seed
    if given.child:
        return fuzz(given.targets[0], given.seconds, seed)
    return max([_in_child(name, given.seconds, seed) for name in given.targets or TARGETS])


def _in_child(name: str, seconds: float, seed: int) -> int:
    with tempfile.TemporaryDirectory(prefix="gtp-fuzz-") as folder:
        command = [sys.executable, __file__, name, "--child", "--seconds", str(seconds), "--seed", str(seed)]
        done = subprocess.run(command, env={**os.environ, "TMPDIR": folder, "OMP_NUM_THREADS": "1"}, check=False)
        if done.returncode < 0:
            current = Path(folder) / "current"
            print(f"{name}: the process died by signal {-done.returncode}: {keep(name, current.read_bytes())}")
            return 1
    return done.returncode


def keep(name: str, content: bytes) -> Path:
    """Write an input to the corpus."""
    path = CORPUS / name / hashlib.sha256(content).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def fuzz(name: str, seconds: float, seed: int) -> int:
    """Mutate bytes for half of the time, make structures for the other half; return 1 where something was found."""
    from mutating import mutate
    from targets import TARGETS

    target, random, runner = TARGETS[name], Random(seed), Runner(name)
    known = sorted((CORPUS / name).glob("*")) if (CORPUS / name).is_dir() else []
    seeds = [*target.seeds(), *(path.read_bytes() for path in known)]
    for content in seeds:
        runner.run(content)
    end = time.monotonic() + seconds / 2
    while time.monotonic() < end:
        runner.run(mutate(random, seeds, target.words))
    _structured(target.structured, runner.run, time.monotonic() + seconds / 2, seed)
    print(f"{name}: {runner.count} inputs (seed {seed}), {len(runner.found)} findings, largest {_megabytes():.0f} MB")
    return int(bool(runner.found))


def _structured(strategy: object, run: Callable[[bytes], None], end: float, start: int) -> None:
    """Let hypothesis make inputs until the time is over."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    while time.monotonic() < end:
        start += 1

        @seed(start)
        @settings(
            max_examples=200,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)  # type: ignore[arg-type]
        def once(content: bytes) -> None:
            if time.monotonic() < end:
                run(content)

        once()


class Runner:
    """Runs inputs and keeps what is found, one input a place in the code."""

    def __init__(self, name: str) -> None:
        from targets import TARGETS

        self.name, self.target, self.count = name, TARGETS[name], 0
        self.found: set[str] = set()
        self.folder = Path(tempfile.mkdtemp(prefix="gtp-fuzz-"))
        self.current = Path(tempfile.gettempdir()) / "current"
        signal.signal(signal.SIGALRM, _too_long)
        warnings.simplefilter("ignore")

    def run(self, content: bytes) -> None:
        """Run an input within the limits."""
        from targets import attempt

        self.current.write_bytes(content)
        self.count += 1
        before = _megabytes()
        signal.alarm(SECONDS)
        try:
            attempt(self.target, content, self.folder)
        except (Exception, TooLong) as error:
            signal.alarm(0)
            self.report(content, error)
        finally:
            signal.alarm(0)
        if _megabytes() > max(before, 0) + MEGABYTES:
            self.report(content, MemoryError(f"{_megabytes():.0f} MB"))

    def report(self, content: bytes, error: BaseException) -> None:
        """Keep an input, unless one is known that fails at the same place."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{type(error).__name__} {frames[-1].filename if frames else ''}:{frames[-1].lineno if frames else 0}"
        if place not in self.found:
            self.found.add(place)
            print(f"{self.name}: {keep(self.name, content)}\n{''.join(traceback.format_exception(error))}", flush=True)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong(f"more than {SECONDS} s")


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
